"""The driver: loaded, safe, held, and the GPUs set as declared."""

import re
from datetime import date
from typing import Any

import pytest

from llmhost.checks.applies import does_not_apply
from llmhost.checks.nvidia import Nvidia, note, require_gpu
from llmhost.settings import Settings


@pytest.fixture
def nvidia(hardware: Nvidia, settings: Settings, request: pytest.FixtureRequest) -> Nvidia:
    require_gpu(hardware, settings)
    note(request, hardware)
    return hardware


@pytest.fixture
def linux_driver(nvidia: Nvidia) -> Nvidia:
    if nvidia.wsl:
        does_not_apply("on WSL the driver is Windows's")
    return nvidia


FOLLOWS_THE_KERNEL = re.compile(r"linux-(modules|objects|signatures)-nvidia-")
PARTS_OF_A_DRIVER = (
    "libcuda1 'libnvidia-compute*' 'libnvidia-cfg*' nvidia-smi 'nvidia-utils*' 'nvidia-headless*'"
    " 'nvidia-compute-utils*' 'nvidia-dkms*' 'nvidia-kernel*' 'nvidia-open-kernel*'"
    " 'nvidia-persistenced*' 'nvidia-driver-cuda*' 'nvidia-driver-libs*' 'nvidia-fabricmanager*'"
    " 'cuda-drivers*'"
)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def test_nvml_works(nvidia: Nvidia) -> None:
    assert "error" not in nvidia.nvml, nvidia.nvml["error"]
    assert nvidia.gpus


def test_every_gpu_on_the_bus_is_listed_by_the_driver(linux_driver: Nvidia) -> None:
    lost = {gpu["index"]: gpu["unavailable"]["pci"] for gpu in linux_driver.gpus if not gpu["pci"]}
    assert lost == {}
    listed = {gpu["pci"].removeprefix("0000") for gpu in linux_driver.gpus}
    assert listed == set(linux_driver.pci)


def test_nvidia_smi_and_nvml_agree(host: Any, nvidia: Nvidia) -> None:
    smi = "/usr/lib/wsl/lib/nvidia-smi" if nvidia.wsl else "nvidia-smi"
    query = host.run(f"{smi} --query-gpu=uuid,driver_version --format=csv,noheader,nounits")
    rows = [tuple(line.split(", ")) for line in query.stdout.splitlines()]
    driver = nvidia.nvml["driver"]
    assert rows == [(gpu["uuid"], driver) for gpu in nvidia.gpus]


def test_loaded_module_matches_the_libraries(host: Any, linux_driver: Nvidia) -> None:
    loaded = host.file("/proc/driver/nvidia/version").content_string.splitlines()[0]
    assert f" {linux_driver.nvml['driver']} " in f"{loaded} "


def test_driver_has_no_known_security_hole(
    host: Any, linux_driver: Nvidia, settings: Settings
) -> None:
    driver = linux_driver.nvml["driver"]
    branch = numbers(driver)[0]
    floor = settings.nvidia_driver.security_floors.get(branch)
    if floor is None:
        pytest.skip(f"not checked: no security floor is known for driver {driver}")
    if numbers(driver) >= numbers(floor):
        return
    until = settings.nvidia_driver.accept_vulnerable_until
    if until and date.today() <= until:
        pytest.skip(f"not checked: vulnerabilities of driver {driver} are accepted until {until}")
    names = host.run("dpkg-query -W -f '${Package}\\n' 'nvidia-utils-*' 'libnvidia-compute*'")
    lines = host.run("apt-cache madison " + " ".join(names.stdout.split())).stdout.splitlines()
    offered = [line.split("|")[1].strip() for line in lines if line.count("|") == 2]
    fixed = [each for each in offered if numbers(each)[0] == branch]
    assert not [each for each in fixed if numbers(each) >= numbers(floor)], f"{driver} < {floor}"
    pytest.skip(f"not checked: no package source offers {floor}, which {driver} ought to be")


def test_no_linux_driver_is_installed_on_wsl(host: Any, nvidia: Nvidia) -> None:
    if not nvidia.wsl:
        does_not_apply("this server is not WSL")
    query = "dpkg-query -W -f '${db:Status-Abbrev} ${Package}\\n' 'nvidia-utils*' 'nvidia-dkms*'"
    installed = [line for line in host.run(query).stdout.splitlines() if line.startswith("ii")]
    assert installed == []


def test_driver_is_not_upgraded_automatically(
    host: Any, linux_driver: Nvidia, settings: Settings
) -> None:
    if not settings.nvidia_driver.managed:
        does_not_apply("llmhost does not manage the driver")
    # Tools, the CUDA toolkit and libraries of i386 programs have similar names.
    native = host.check_output("dpkg --print-architecture")
    query = "dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Architecture}\\n'"
    lines = host.run(f"{query} {PARTS_OF_A_DRIVER}").stdout.splitlines()
    found = [line.split() for line in lines if line[1:2] == "i"]
    parts = [(status, name) for status, name, of in found if of in (native, "all")]
    assert parts
    loose = [name for status, name in parts if not status.startswith("h")]
    assert loose == []
    blacklist = host.run("apt-config dump Unattended-Upgrade::Package-Blacklist").stdout
    patterns = re.findall(r'Blacklist:: "(.*)"', blacklist)
    assert all(any(re.match(each, name) for each in patterns) for _, name in parts)


def test_next_kernel_has_its_module(host: Any, linux_driver: Nvidia, settings: Settings) -> None:
    if not settings.nvidia_driver.managed:
        does_not_apply("llmhost does not manage the driver")
    query = "dpkg-query -W -f '${db:Status-Abbrev} ${Package}\\n' 'linux-*nvidia-*'"
    found = [line.split() for line in host.run(query).stdout.splitlines() if line[1:2] == "i"]
    modules = [(status, name) for status, name in found if FOLLOWS_THE_KERNEL.match(name)]
    if not modules:
        does_not_apply("DKMS builds the module")
    assert [name for status, name in modules if status.startswith("h")] == []
    blacklist = host.run("apt-config dump Unattended-Upgrade::Package-Blacklist").stdout
    patterns = re.findall(r'Blacklist:: "(.*)"', blacklist)
    assert not any(re.match(each, name) for each in patterns for _, name in modules)


def test_nouveau_is_not_loaded(host: Any, linux_driver: Nvidia) -> None:
    assert not host.file("/sys/module/nouveau").exists


def test_gpus_are_set_as_declared(host: Any, linux_driver: Nvidia, settings: Settings) -> None:
    if not settings.nvidia_driver.managed:
        does_not_apply("llmhost does not manage the driver")
    limit = settings.nvidia_driver.power_limit_watts
    for gpu in linux_driver.gpus:
        assert gpu["persistence"] is True
        refused = host.run("cat /run/llmhost-gpu/power").stdout.lower()
        if f"not supported for gpu: {gpu['pci']}" in refused:
            continue
        if limit is not None and gpu["power_limit_watts"] is not None:
            assert abs(gpu["power_limit_watts"] - limit) < 1


def test_fabric_manager_has_the_version_of_the_driver(host: Any, linux_driver: Nvidia) -> None:
    classes = host.run("cat /sys/bus/pci/devices/*/class").stdout.split()
    vendors = host.run("cat /sys/bus/pci/devices/*/vendor").stdout.split()
    switches = [
        c for c, v in zip(classes, vendors, strict=True) if (v, c[:6]) == ("0x10de", "0x0680")
    ]
    if not switches:
        does_not_apply("this server has no NVSwitch")
    assert host.service("nvidia-fabricmanager").is_running
    query = "dpkg-query -W -f '${Version}\\n' 'nvidia-fabricmanager*'"
    (version,) = [line for line in host.run(query).stdout.splitlines() if line]
    assert numbers(version) == numbers(linux_driver.nvml["driver"])
