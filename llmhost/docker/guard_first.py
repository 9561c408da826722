"""ufw's rules for containers stay ahead of Docker's own at every start of the daemon."""

from llmhost.resources import FILES
from llmhost.system.files import Absent, Directory, Entry, File

DROP_IN = "/etc/systemd/system/docker.service.d/50-llmhost-firewall.conf"
SCRIPT = "/usr/local/lib/llmhost/docker-guard-first"


def guard_first_files(wanted: bool) -> tuple[Entry, ...]:
    """The script, and the drop-in that runs it after each start of the daemon."""
    if not wanted:
        return (Absent(DROP_IN), Absent(SCRIPT))
    files = (
        File(SCRIPT, (FILES / "docker/guard_first.sh").read_text(), mode="0755"),
        File(DROP_IN, (FILES / "docker/guard_first.conf").read_text()),
    )
    return (*(Directory(file.path.rpartition("/")[0]) for file in files), *files)
