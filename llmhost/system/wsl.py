"""Windows Subsystem for Linux: its /etc/wsl.conf. Pure."""

import re

CONFIGURATION = "/etc/wsl.conf"
SMI = "/usr/lib/wsl/lib/nvidia-smi"
"""nvidia-smi of the driver of Windows."""
RESTART = (
    "systemd starts with the next start of this WSL host: close its programs, run "
    "'wsl.exe --shutdown' in Windows, open it again and deploy again (WSL 0.67.6 or newer)"
)


def with_systemd(text: str) -> str:
    """The file with `systemd=true` below `[boot]`; other lines do not change."""
    kept = re.sub(r"(?im)^\s*systemd\s*=.*\n?", "", text)
    if kept and not kept.endswith("\n"):
        kept += "\n"
    if re.search(r"(?im)^\s*\[boot\]", kept):
        return re.sub(r"(?im)^(\s*\[boot\].*\n?)", r"\1systemd=true\n", kept, count=1)
    return f"{kept}[boot]\nsystemd=true\n"
