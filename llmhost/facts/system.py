"""What kind of host this is: everything that no deploy of ours changes."""

import shlex

from pyinfra.api import FactBase

from llmhost.system.host_identity import HostIdentity, parse_identity

_SCRIPT = r"""
. /etc/os-release 2>/dev/null
echo "distribution=$ID"; echo "version=$VERSION_ID"; echo "codename=$VERSION_CODENAME"
echo "machine=$(uname -m)"; echo "kernel=$(uname -r)"; echo "uid=$(id -u)"; echo "user=$(id -un)"
echo "init=$(cat /proc/1/comm)"; echo "boot_id=$(cat /proc/sys/kernel/random/boot_id)"
echo "virtualization=$(systemd-detect-virt 2>/dev/null)"
echo "memory_kib=$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"
echo "clock=$(date +%s.%N)"
[ -e "$receipt" ] && echo "deployed=yes"
for path; do
  place=$path; while [ ! -e "$place" ]; do place=$(dirname "$place"); done
  echo "free_kib $path=$(df -Pk "$place" | awk 'NR==2 {print $4}')"
done; true
"""


class HostIdentityFact(FactBase[HostIdentity | None]):
    """Distribution, hardware, clock and free space in one round trip.

    `paths` are those whose free space matters (of the nearest parent that exists); `receipt` is
    the file whose presence tells that llmhost has deployed this host before.
    """

    of_the_moment = True  # its clock is compared with the controller's: never read ahead

    def command(self, paths: list[str], receipt: str) -> str:
        listed = " ".join(shlex.quote(path) for path in paths)
        return f"receipt={shlex.quote(receipt)}; set -- {listed}; {_SCRIPT}"

    def process(self, output: list[str]) -> HostIdentity:
        return parse_identity(output)
