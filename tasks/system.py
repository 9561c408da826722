"""System: clock, packages, updates, kernel parameters and sshd."""

from collections.abc import Sequence

from llmhost import host_packages
from llmhost.operations import apt, audit, clock, files, sshd, sysctl, systemd
from llmhost.operations.component import component
from llmhost.settings import Settings
from llmhost.system.files import Absent, Entry, File
from llmhost.template import render

# The last file of its directory, so that no other file overrides it.
_APT = "/etc/apt/apt.conf.d/zz-llmhost"
_PROTOCOLS = "/etc/modprobe.d/llmhost-protocols.conf"
# Who may log in, and become root.
_AUDITED = (
    *("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh"),
    *("/etc/nginx", "/etc/ufw"),
)
_UPDATES = ("apt-daily", "apt-daily-upgrade")


@component("System")
def configure_system(settings: Settings) -> None:
    """Prepare the operating system for the other components."""
    system = settings.system
    updates = int(system.unattended_upgrades)
    files.present(
        File(_APT, render("system/zz-llmhost.j2", system=system, updates=updates)),
        Absent("/etc/apt/apt.conf.d/60llmhost"),  # before llmhost 0.3
        name="Configure apt and its automatic updates",
    )
    apt.packages(*host_packages.system(settings), name="Install the base packages")
    apt.settled(name="Finish interrupted installations")
    strict = system.hardening == "cis"
    _remove_overrides(system.accepted_overrides, strict=strict)
    if system.unattended_upgrades:
        for unit in _UPDATES:
            systemd.service(f"{unit}.timer", name=f"Run {unit}.timer")
    clock.right(system.timezone, name="Set the time zone and keep the clock synchronized")
    sysctl.parameters(
        system.kernel_parameters,
        if_known=system.hardened_parameters,
        path="/etc/sysctl.d/60-llmhost.conf",
        name="Set the kernel parameters",
    )
    # Ubuntu has started sshd by its socket since 22.10.
    systemd.starts_at_boot("ssh.service", "ssh.socket", by_target=True, name="Start sshd at boot")
    files.present(*_strict_files(strict), name="Disable unused protocols and set the login banner")
    audit.watched(
        *(_AUDITED if strict else ()),
        component="system",
        name="Audit changes to accounts and access",
    )
    sshd.settings(
        system.hardening,
        passwords=system.ssh_password_login,
        confirm_seconds=system.confirm_seconds,
        name="Harden sshd",
    )


def _remove_overrides(accepted: Sequence[str], *, strict: bool) -> None:
    systemd.without_overrides(
        *(f"{unit}.{kind}" for unit in _UPDATES for kind in ("timer", "service")),
        known=accepted,
        then="reload",
        name="Remove overrides of the automatic updates",
    )
    systemd.without_overrides(
        "ssh.service",
        "ssh.socket",
        known=accepted,
        correct=False,  # one of them may be the only way in
        name="Report overrides of sshd",
    )
    if strict:
        systemd.without_overrides(
            "auditd.service",
            known=accepted,
            then="reload",
            name="Remove overrides of auditd's unit",
        )


def _strict_files(strict: bool) -> tuple[Entry, ...]:
    """The warning stays where it was once."""
    if not strict:
        return (Absent(_PROTOCOLS),)
    warning = render("system/issue.j2")
    return (
        File(_PROTOCOLS, render("system/protocols.conf.j2")),
        File("/etc/issue", warning),
        File("/etc/issue.net", warning),
    )
