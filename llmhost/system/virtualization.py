"""Whether a host has its own kernel and its own clock.

systemd classifies WSL as a container (systemd-detect-virt(1)), because Windows manages its clock
and devices. It has its own kernel: its parameters affect no other system.
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
    """Whether the host manages its clock: Windows manages that of WSL."""
    return container in NONE
