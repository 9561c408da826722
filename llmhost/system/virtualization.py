"""What a host shares with another system: its kernel, its clock, or neither.

systemd counts WSL among the containers (systemd-detect-virt(1)), because Windows keeps its clock
and its devices. Its kernel is its own: a parameter set there reaches no other system.
"""

NONE = ("", "none")


def is_wsl(kernel_release: str) -> bool:
    """Whether a kernel is that of the Windows Subsystem for Linux (systemd, src/basic/virt.c)."""
    release = kernel_release.lower()
    return "microsoft" in release or "wsl" in release


def has_own_kernel(container: str) -> bool:
    """Whether the kernel is the host's own, by what `systemd-detect-virt --container` prints."""
    return container in (*NONE, "wsl")


def has_own_clock(container: str) -> bool:
    """Whether the host keeps its own clock: Windows keeps that of WSL."""
    return container in NONE
