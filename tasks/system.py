"""System: clock, packages, updates and kernel parameters."""

from llmhost import host_packages
from llmhost.operations import apt, clock, files, sysctl, systemd
from llmhost.operations.component import component
from llmhost.settings import Settings
from llmhost.system.files import File
from llmhost.template import render


@component("System")
def configure_system(settings: Settings) -> None:
    """Prepare the operating system for the other components."""
    system = settings.system
    files.present(
        File(
            "/etc/apt/apt.conf.d/60llmhost",
            render("system/60llmhost.j2", system=system, updates=int(system.unattended_upgrades)),
        ),
        name="Configure apt and its automatic updates",
    )
    apt.packages(*host_packages.system(settings), name="Install the base packages")
    if system.unattended_upgrades:
        for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
            systemd.service(timer, name=f"Update by {timer}")
    clock.right(system.timezone, name="Set the time zone and keep the clock right")
    sysctl.parameters(
        system.kernel_parameters,
        path="/etc/sysctl.d/60-llmhost.conf",
        name="Set the kernel parameters",
    )
    # Ubuntu has started sshd by its socket since 22.10.
    systemd.starts_at_boot("ssh.service", "ssh.socket", name="Start sshd at boot")
