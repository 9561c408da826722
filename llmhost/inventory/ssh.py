"""The SSH settings of an inventory for OpenSSH."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# pyinfra's connector data and its name in ssh_config(5).
_OPTIONS = {
    "ssh_hostname": "HostName",
    "ssh_port": "Port",
    "ssh_user": "User",
    "ssh_key": "IdentityFile",
    "ssh_known_hosts_file": "UserKnownHostsFile",
}


def ssh_config(host: str, data: Mapping[str, Any], sockets: Path) -> str:
    """Text of an ssh_config for one host, with one connection shared by all commands.

    OpenSSH uses the first value, so the inventory's own ssh_config comes last.
    """
    lines = [f"Host {host}"]
    lines += [f"  {option} {data[key]}" for key, option in _OPTIONS.items() if key in data]
    lines += ["  ControlMaster auto", f"  ControlPath {sockets}/%C", "  ControlPersist 60"]
    lines += ["  BatchMode yes", "  ConnectTimeout 20"]
    # Otherwise a host that is cut off while a command runs would be waited for for hours.
    lines += ["  ServerAliveInterval 15", "  ServerAliveCountMax 4", ""]
    other = Path(str(data.get("ssh_config_file", "~/.ssh/config"))).expanduser().resolve()
    lines += [f"Include {other}", ""] if other.is_file() else []
    return "\n".join(lines)
