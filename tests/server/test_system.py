"""The operating system of a provisioned server."""

import re
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from llmhost.checks.applies import does_not_apply
from llmhost.checks.nvidia import on_wsl
from llmhost.inventory.site import SiteHost
from llmhost.settings import Settings
from llmhost.system.overrides import OWN
from llmhost.system.sysctl import proc_path


@pytest.fixture(scope="module")
def container(host: Any) -> bool:
    """Whether another system manages the server's clock: systemd classifies WSL as a container."""
    return bool(host.run("systemd-detect-virt --quiet --container").rc == 0)


@pytest.fixture(scope="module")
def shared_kernel(host: Any, container: bool) -> bool:
    """Whether a kernel parameter of the server affects other systems. Not on WSL."""
    return container and not on_wsl(host)


@pytest.fixture(scope="module")
def over_ssh(host: Any) -> bool:
    """Whether the server is reached by SSH, and not the machine that runs this."""
    return bool(host.backend.NAME == "ssh")


def test_clock_shows_the_declared_time_zone(host: Any, settings: Settings) -> None:
    now = datetime.now(ZoneInfo(settings.system.timezone))
    assert host.check_output("date +%z") == now.strftime("%z")


def test_clock_is_synchronized(host: Any, container: bool) -> None:
    if container:
        does_not_apply("the clock of a container is that of its host")
    names = ("systemd-timesyncd", "chrony", "ntpsec", "openntpd", "ntp")
    assert any(host.service(name).is_running for name in names)


def test_apt_waits_for_another_package_manager(host: Any, settings: Settings) -> None:
    shell = 'eval "$(apt-config shell seconds DPkg::Lock::Timeout)"; echo "$seconds"'
    assert host.check_output(shell) == str(settings.system.apt_lock_timeout_seconds)


def test_security_fixes_install_themselves_without_a_reboot(host: Any, settings: Settings) -> None:
    configuration = host.check_output("apt-config dump")
    wanted = int(settings.system.unattended_upgrades)
    assert f'APT::Periodic::Unattended-Upgrade "{wanted}";' in configuration
    if not settings.system.unattended_upgrades:
        does_not_apply("this server does not install updates automatically")
    lists = ("Unattended-Upgrade::Origins-Pattern:: ", "Unattended-Upgrade::Allowed-Origins:: ")
    origins = [line for line in configuration.splitlines() if line.startswith(lists)]
    assert origins and all("security" in origin for origin in origins)
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in configuration
    assert host.package("unattended-upgrades").is_installed
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert host.service(timer).is_enabled and host.service(timer).is_running


def test_kernel_has_the_declared_parameters(
    host: Any, settings: Settings, shared_kernel: bool
) -> None:
    hardened = settings.system.hardened_parameters
    declared = {**hardened, **settings.system.kernel_parameters}
    own = {name: value for name, value in declared.items() if not shared_kernel or "net." in name}
    paths = " ".join(map(proc_path, own))
    writable = host.check_output(f"for file in {paths}; do test -w $file && echo $file; done; true")
    printed = host.run(f"grep -H '' {paths}").stdout.splitlines()
    running = dict(line.split(":", 1) for line in printed)
    for name, value in own.items():
        if proc_path(name) in writable.split() or name not in hardened:
            # The kernel prints tabs between numbers.
            found = running.get(proc_path(name), "").split()
            assert (name, found) == (name, value.split())


def test_container_does_not_change_its_hosts_kernel(host: Any, shared_kernel: bool) -> None:
    if not shared_kernel:
        does_not_apply("the server has its own kernel")
    assert "vm." not in host.file("/etc/sysctl.d/60-llmhost.conf").content_string


def test_sshd_starts_at_boot(host: Any) -> None:
    listed = "systemctl list-unit-files --no-legend ssh.service ssh.socket"
    states = [line.split()[1] for line in host.run(listed).stdout.splitlines()]
    if not states:
        does_not_apply("this server has no sshd")
    assert "enabled" in states


def test_sshd_has_the_settings_of_its_hardening(
    host: Any, settings: Settings, over_ssh: bool
) -> None:
    level = settings.system.hardening
    if level == "off" or not over_ssh:
        does_not_apply("a deploy does not harden sshd here")
    lines = host.check_output("/usr/sbin/sshd -T").splitlines()
    pairs = (line.split(" ", 1) for line in lines)
    found = {key.lower(): value for key, value in pairs}
    assert found["permitemptypasswords"] == found["x11forwarding"] == "no"
    assert 0 < int(found["logingracetime"]) <= 60
    assert int(found["maxauthtries"]) <= (4 if level == "cis" else 6)
    if level == "cis":
        assert found["allowagentforwarding"] == found["compression"] == "no"
        assert 0 < int(found["clientaliveinterval"]) <= 300
        assert found["loglevel"] in ("VERBOSE", "DEBUG", "DEBUG1", "DEBUG2", "DEBUG3")
        assert host.file(found["banner"]).size > 0


def test_sshd_offers_no_password_log_in(
    site_host: SiteHost, settings: Settings, over_ssh: bool, ssh_name: str, ssh_config_path: Path
) -> None:
    system = settings.system
    if system.hardening == "off" or system.ssh_password_login or not over_ssh:
        does_not_apply("a deploy keeps password login here")
    if site_host.data.get("ssh_password"):
        does_not_apply("deploys log in with a password, which they never end")
    options = ["ControlPath=none", "BatchMode=yes", "PreferredAuthentications=none"]
    words = [word for option in options for word in ("-o", option)]
    command = ["ssh", "-F", str(ssh_config_path), *words, ssh_name, "true"]
    refusal = subprocess.run(command, capture_output=True, text=True, timeout=60).stderr
    offered = refusal.rpartition("Permission denied (")[2].partition(")")[0].split(",")
    assert "publickey" in offered, refusal
    assert not {"password", "keyboard-interactive"} & {*offered}


def test_changes_of_accounts_and_docker_are_audited(
    host: Any, settings: Settings, shared_kernel: bool
) -> None:
    if settings.system.hardening != "cis" or shared_kernel:
        does_not_apply("a deploy sets up no audit here")
    assert host.service("auditd").is_running and host.service("auditd").is_enabled
    rules = host.check_output("auditctl -l")
    watched = ["/etc/shadow", "/etc/sudoers", "/etc/ssh"]
    watched += ["/etc/docker", "/etc/docker/daemon.json"] if settings.services else []
    assert [path for path in watched if f"{path} " not in rules.replace("/ -p", " -p")] == []


def test_unused_protocols_cannot_be_loaded(host: Any, settings: Settings) -> None:
    if settings.system.hardening != "cis":
        does_not_apply("system_hardening is not cis")
    lines = host.file("/etc/modprobe.d/llmhost-protocols.conf").content_string.splitlines()
    assert {f"install {name} /bin/false" for name in ("dccp", "rds", "sctp", "tipc")} <= {*lines}


def test_all_packages_are_fully_installed(host: Any) -> None:
    assert host.check_output("dpkg --audit") == ""


UNITS = (
    *("docker.service", "docker.socket", "containerd.service", "ufw.service", "nginx.service"),
    *("mtail.service", "logrotate.timer", "logrotate.service"),
    *("apt-daily.timer", "apt-daily.service"),
    *("apt-daily-upgrade.timer", "apt-daily-upgrade.service"),
    *("llmhost-heal.timer", "llmhost-heal.service", "llmhost-gpu.service"),
    *("nvidia-cdi-refresh.service", "nvidia-cdi-refresh.path"),
    *("nvidia-persistenced.service", "nvidia-fabricmanager.service", "auditd.service"),
    *("llmhost-backup.timer", "llmhost-backup.service", "llmhost-metrics.service"),
    *("prometheus.service", "prometheus-alertmanager.service", "prometheus-node-exporter.service"),
)
_VENDORS = ("/usr/lib/", "/lib/", "/run/systemd/generator")


def test_no_unit_has_undeclared_overrides(host: Any, settings: Settings) -> None:
    """What systemd has loaded; a deploy compares what is on disk."""
    # A Prometheus of the site's own is not llmhost's.
    monitored = settings.monitoring.enabled
    units = [unit for unit in UNITS if monitored or not unit.startswith("prometheus")]
    shown = host.check_output(f"systemctl show -P DropInPaths {' '.join(units)}")
    own = (*_VENDORS, *OWN, *settings.system.accepted_overrides)
    paths = [path for path in shown.split() if not path.startswith(own)]
    specific = [path for path in paths if any(f"/{unit}.d/" in path for unit in units)]
    assert [path for path in specific if not _is_harmless(host, path)] == []
    packaged = host.run(f"cd /usr/lib/systemd/system && ls -d {' '.join(units)}").stdout.split()
    shown = host.check_output(f"systemctl show -p FragmentPath {' '.join(packaged)}")
    for loaded in re.findall("^FragmentPath=(.*)", shown, re.MULTILINE):
        assert loaded.startswith(own) or host.run(f"dpkg -S {loaded}").succeeded, loaded


def _is_harmless(host: Any, path: str) -> bool:
    """A package's drop-in, or one that only sets proxies."""
    others = rf"grep -qviE '^[[:space:]]*([#;[]|$|Environment=\"?[a-z]+_proxy=)' {path}"
    return bool(host.run(f"dpkg -S {path}").succeeded or host.run(others).rc == 1)
