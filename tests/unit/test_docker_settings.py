"""Options of Docker and of the system."""

from typing import Any

import pytest

from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.template import render


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("docker_daemon_options", {"hosts": ["tcp://0.0.0.0:2375"]}),
        ("docker_repository_key_fingerprint", "9DC8 5822"),
        ("docker_repository_url", "ftp://e.invalid"),
        ("docker_source", "snap"),
        ("docker_data_root", "relative/path"),
        ("system_timezone", "Asia/Pyongyong"),
        ("system_sysctl", {"somaxconn": 1}),
        ("system_sysctl", {"../../etc/passwd": 1}),
        ("system_sysctl", {"net/../../../etc/passwd": 1}),
    ],
)
def test_impossible_option_is_refused_by_its_name(key: str, value: object) -> None:
    with pytest.raises(SettingsError) as error:
        read_settings({key: value})
    assert [problem.key.startswith(key) for problem in error.value.problems] == [True]


def test_networks_larger_than_their_pool_are_refused() -> None:
    with pytest.raises(SettingsError):
        read_settings({"docker_address_pool": "10.9.0.0/20", "docker_address_pool_prefix": 18})


def test_nothing_is_published_to_the_network_by_default() -> None:
    config = read_settings({}).docker.daemon_config()
    assert config["ip"] == "127.0.0.1"
    assert list(config["default-network-opts"]["bridge"].values()) == ["127.0.0.1"]


def test_daemon_options_override() -> None:
    options: dict[str, Any] = {"docker_daemon_options": {"live-restore": False, "mtu": 1400}}
    config = read_settings(options).docker.daemon_config()
    assert (config["live-restore"], config["mtu"], config["log-driver"]) == (False, 1400, "local")


def test_log_options_are_strings() -> None:
    options = read_settings({}).docker.daemon_config()["log-opts"]
    assert options == {"max-size": "50m", "max-file": "3"}


def test_kernel_parameters_of_the_site_override() -> None:
    parameters = read_settings({"system_sysctl": {"vm.max_map_count": 7}}).system.kernel_parameters
    assert parameters["vm.max_map_count"] == "7" and list(parameters) == sorted(parameters)


@pytest.mark.parametrize("updates", [0, 1])
def test_apt_configuration_says_who_manages_it(updates: int) -> None:
    text = render("system/zz-llmhost.j2", system=read_settings({}).system, updates=updates)
    assert text.startswith("// Managed by llmhost")
    assert f'APT::Periodic::Unattended-Upgrade "{updates}";' in text
    assert 'DPkg::Lock::Timeout "300";' in text
    assert "codename=${distro_codename}-security" in text
