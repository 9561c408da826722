"""The SSH settings of an inventory for OpenSSH, which then connects as pyinfra does."""

from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import Any

# pyinfra's connector data and its name in ssh_config(5).
_OPTIONS = {
    "ssh_port": "Port",
    "ssh_user": "User",
    "ssh_strict_host_key_checking": "StrictHostKeyChecking",
}
_PATHS = {"ssh_key": "IdentityFile", "ssh_known_hosts_file": "UserKnownHostsFile"}


def ssh_target(host: str, data: Mapping[str, Any]) -> str:
    """What OpenSSH is asked for to reach a host. As for pyinfra, `ssh_hostname` may be a name of an
    ssh_config."""
    return str(data.get("ssh_hostname") or host)


def ssh_config(host: str, data: Mapping[str, Any], sockets: Path) -> str:
    """Text of an ssh_config for the `ssh_target` of one host, with one connection shared by all
    commands. `sockets` is a directory for this host alone.

    OpenSSH uses the first value, so the inventory's own ssh_config comes last.
    """
    lines = [f"Host {ssh_target(host, data)}"]
    lines += [f"  {option} {data[key]}" for key, option in _OPTIONS.items() if key in data]
    lines += [f"  {option} {_word(data[key])}" for key, option in _PATHS.items() if key in data]
    # As pyinfra: the server would count each key of the agent as a failure.
    lines += ["  IdentitiesOnly yes"] if data.get("ssh_key") else []
    # A short name: the path of a socket has 104 bytes at most, and OpenSSH adds 17.
    lines += ["  ControlMaster auto", f"  ControlPath {_word(sockets / 's')}"]
    lines += ["  ControlPersist 60", "  BatchMode yes", "  ConnectTimeout 20"]
    # Otherwise a host that is cut off while a command runs would be waited for for hours.
    lines += ["  ServerAliveInterval 15", "  ServerAliveCountMax 4", ""]
    other = Path(str(data.get("ssh_config_file", "~/.ssh/config"))).expanduser().resolve()
    # For all hosts: a jump host has its own section there.
    lines += ["Host *", f"Include {_quoted(escape(str(other)))}", ""] if other.is_file() else []
    return "\n".join(lines)


def _word(path: object) -> str:
    """A path as one word, in which % begins a token."""
    return _quoted(str(path).replace("%", "%%"))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
