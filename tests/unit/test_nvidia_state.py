"""The fact's own script, run by sh over trees of files that play hosts, and its parser."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from llmhost.facts.nvidia import Nvidia
from llmhost.nvidia.data import Generation
from llmhost.nvidia.generation import GENERATIONS as G
from llmhost.nvidia.packages import REPORTED
from llmhost.nvidia.state import NvidiaState, parse_state
from tests.doubles.nvidia.hardware import GPU_LIST, PROFILES, write_tree
from tests.doubles.nvidia.module import build_module

DOUBLES = Path(__file__).parents[1] / "doubles" / "nvidia"
BLACKLIST = "/etc/modprobe.d/llmhost-nvidia.conf"
KERNEL = "6.8.0-85-generic"
NEXT = "6.8.0-86-generic"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Release Build  (x)\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.309.01  Tue Apr  8 2025\n"


def read(root: Path, *, wanted: bool = False) -> NvidiaState:
    """The host that the tree plays, as the fact sees it."""
    command = Nvidia().command(list(REPORTED), ["/mok.pub"], BLACKLIST, wanted, str(root))
    environment = {
        "PATH": f"{root}/usr/bin:{os.environ['PATH']}",
        "LLMHOST_DOUBLE_GPUS": f"{root}{GPU_LIST}",
        "LLMHOST_DOUBLE_LOADED": f"{root}/proc/driver/nvidia/version",
        "LLMHOST_DOUBLE_STATE": f"{root}/run/double",
    }
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr == ""
    return Nvidia().process(done.stdout.splitlines())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path, "etc/os-release", 'ID=ubuntu\nVERSION_ID="24.04"\n')
    put(tmp_path, "proc/1/comm", "systemd\n")
    put(tmp_path, "var/lib/dpkg/status", "")
    return tmp_path


def put(root: Path, path: str, content: str) -> Path:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(content)
    return place


def install(root: Path, *packages: tuple[str, str, str]) -> None:
    """Let dpkg's database hold packages: (status, name, version)."""
    wants = {"i": "install", "h": "hold", "r": "deinstall"}
    states = {"i": "installed", "c": "config-files", "U": "unpacked"}
    entries = [
        f"Package: {name}\nStatus: {wants[status[0]]} ok {states[status[1]]}\nVersion: {version}\n"
        "Architecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
        for status, name, version in packages
    ]
    put(root, "var/lib/dpkg/status", "\n".join(entries))


def add_smi(root: Path, version: str = "580.159.03", at: str = "usr/bin/nvidia-smi") -> None:
    text = (DOUBLES / "nvidia-smi").read_text().replace("@VERSION@", version)
    put(root, at, text).chmod(0o755)


@pytest.mark.parametrize(
    ("profile", "generations", "switch"),
    [
        ("none", (), False),
        ("rtx-5070-ti", (G["BLACKWELL"],), False),
        ("two-rtx-4090", (G["ADA"], G["ADA"]), False),
        ("h200-nvswitch", (G["HOPPER"], G["HOPPER"]), True),
        ("gtx-1080-ti", (G["PASCAL"],), False),
        ("pascal-and-blackwell", (G["PASCAL"], G["BLACKWELL"]), False),
    ],
)
def test_hardware_is_found_without_any_driver(
    root: Path, profile: str, generations: tuple[Generation, ...], switch: bool
) -> None:
    write_tree(root, PROFILES[profile])
    state = read(root)
    assert state.generations == generations
    assert (state.has_gpu, state.has_nvswitch) == (bool(generations), switch)
    assert (state.release, state.init) == ("ubuntu-24.04", "systemd")
    assert (state.loaded, state.next_module, state.gpus) == (None, None, ())


def test_a_host_without_nvidia_hardware_is_asked_nothing_more(root: Path) -> None:
    write_tree(root, PROFILES["none"])
    install(root, ("ii", "nvidia-utils-580", "580.159.03-1"))
    assert read(root).packages == {}
    assert "nvidia-utils-580" in read(root, wanted=True).packages


@pytest.mark.parametrize(
    ("line", "version", "kind"), [(OPEN, "580.159.03", "open"), (CLOSED, "535.309.01", "closed")]
)
def test_the_loaded_module_tells_its_version_and_kind(
    root: Path, line: str, version: str, kind: str
) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    put(root, "proc/driver/nvidia/version", f"{line}GCC version:  gcc version 13.2.0\n")
    loaded = read(root).loaded
    assert loaded is not None and (loaded.version, loaded.kind) == (version, kind)


@pytest.mark.parametrize("signer", ["", "Canonical Ltd. Kernel Module Signing"])
@pytest.mark.parametrize("open_module", [True, False])
def test_the_module_of_the_next_kernel_counts_not_that_of_the_running_one(
    root: Path, open_module: bool, signer: str
) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    for kernel in (KERNEL, NEXT, "6.8.0-9-generic"):
        put(root, f"boot/vmlinuz-{kernel}", "")
    modules = root / "lib/modules"
    build_module(modules / KERNEL / "nvidia.ko", "570.26", open_module=not open_module)
    ready = modules / NEXT / "kernel/nvidia-580srv-open/nvidia.ko"
    build_module(ready, "580.159.03", open_module=open_module, signer=signer)
    state = read(root)
    assert (state.running_kernel, state.next_kernel) == (KERNEL, NEXT)
    assert state.next_module is not None
    assert state.next_module.version == "580.159.03"
    assert state.next_module.kind == ("open" if open_module else "closed")
    assert state.next_module.signer == signer


def test_a_kernel_without_a_module_has_none(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    put(root, f"boot/vmlinuz-{NEXT}", "")
    build_module(root / "lib/modules" / KERNEL / "nvidia.ko", "580.159.03", open_module=True)
    assert read(root).next_module is None


@pytest.mark.parametrize("name", ["nvidia-current.ko", "nvidia-current-open.ko", "nvidia.ko"])
def test_the_module_is_known_by_what_it_says_of_itself(root: Path, name: str) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    modules = root / "lib/modules" / KERNEL / "updates/dkms"
    build_module(modules / name, "550.163.01", open_module=True)
    build_module(
        modules / name.replace("nvidia-current", "nvidia-current-drm").replace("a.ko", "a-drm.ko"),
        "550.163.01",
        open_module=True,
        name="nvidia-drm",
    )
    module = read(root).next_module
    assert module is not None and (module.version, module.kind) == ("550.163.01", "open")


def test_an_updated_module_comes_before_the_kernels_own(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    modules = root / "lib/modules" / KERNEL
    build_module(modules / "kernel/nvidia-580srv/nvidia.ko", "580.159.03", open_module=True)
    build_module(modules / "updates/dkms/nvidia.ko", "595.91.07", open_module=True)
    module = read(root).next_module
    assert module is not None and module.version == "595.91.07"


def test_prebuilt_modules_are_reported_with_all_their_packages(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    names = {
        "linux-modules-nvidia-580-server-open-generic",
        f"linux-objects-nvidia-580-server-open-{KERNEL}",
        f"linux-signatures-nvidia-{KERNEL}",
    }
    install(root, *(("ii", name, "6.8.0-85.85") for name in sorted(names)))
    assert set(read(root).packages) == names


def test_versions_that_the_package_sources_offer_are_read(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    install(root, ("hi", "nvidia-utils-580-server", "580.173.02-0ubuntu0.24.04.1"))
    said = " nvidia-utils-580-server | 580.178.04-0ubuntu0.24.04.1 | http://x noble/restricted"
    put(root, "usr/bin/apt-cache", f"#!/bin/sh\necho '{said}'\n").chmod(0o755)
    assert read(root).offered == ("580.178.04-0ubuntu0.24.04.1",)


def test_a_vgpu_is_known_by_its_pci_configuration(root: Path) -> None:
    write_tree(root, PROFILES["vgpu-guest"])
    assert [device.vgpu for device in read(root).pci] == [True, False]
    assert not any(device.vgpu for device in read_profile(root, "rtx-5070-ti").pci)


def read_profile(root: Path, profile: str) -> NvidiaState:
    shutil.rmtree(root / "sys/bus/pci")
    write_tree(root, PROFILES[profile])
    return read(root)


def test_a_jetson_is_known_by_its_device_tree(root: Path) -> None:
    write_tree(root, PROFILES["none"])
    put(root, "proc/device-tree/compatible", "nvidia,p3737-0000\0nvidia,tegra234\0")
    assert "nvidia,tegra234" in read(root).board


def test_a_whole_hgx_board_is_known_by_its_gpus(root: Path) -> None:
    write_tree(root, PROFILES["hgx-b200"])
    assert read(root).has_hgx_fabric and not read(root).has_nvswitch
    assert not read_profile(root, "h200-nvswitch").has_hgx_fabric


def test_a_gpu_that_takes_no_power_limit_is_read_from_what_it_said(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    said = "Changing power management limit is not supported for GPU: 00000000:01:00.0.\n"
    scope = "Changing power management limit is not supported in current scope for GPU: "
    put(root, "run/llmhost-gpu/power", f"{said}{scope}0000000F:01:00.0\nAll done.\n")
    assert read(root).power_refused == ("00000000:01:00.0", "0000000f:01:00.0")


def test_packages_are_reported_with_version_and_hold(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    install(
        root,
        ("hi", "nvidia-utils-580-server", "580.159.03-0ubuntu0.24.04.1"),
        ("ii", "linux-image-generic-hwe-24.04", "6.17.0-40.40"),
        ("rc", "nvidia-utils-535-server", "535.1-1"),
        ("iU", "libnvidia-compute-580-server", "580.159.03-0ubuntu0.24.04.1"),
        ("ii", "nginx", "1.28"),
    )
    found = read(root).packages
    assert set(found) == {"nvidia-utils-580-server", "linux-image-generic-hwe-24.04"}
    assert found["nvidia-utils-580-server"].held
    assert not found["linux-image-generic-hwe-24.04"].held


def test_libraries_of_another_architecture_do_not_hide_those_of_the_host(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    show = ["dpkg", "--print-architecture"]
    native = subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip()
    entry = (
        "Package: libnvidia-compute-580\nStatus: {} ok installed\nVersion: 580.178.04-1\n"
        "Architecture: {}\nMulti-Arch: same\nMaintainer: x <x@example.org>\nDescription: x\n\n"
    )
    both = entry.format("hold", native) + entry.format("install", "i386")
    put(root, "var/lib/dpkg/status", both)
    assert [each.held for each in read(root).packages.values()] == [True]


@pytest.mark.parametrize(("value", "on"), [(b"\x06\0\0\0\x01", True), (b"\x06\0\0\0\0", False)])
def test_secure_boot_is_read_from_its_firmware_variable(root: Path, value: bytes, on: bool) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    variables = root / "sys/firmware/efi/efivars"
    variables.mkdir(parents=True)
    (variables / "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c").write_bytes(value)
    assert read(root).secure_boot is on


@pytest.mark.parametrize(
    ("answer", "enrolled"),
    [("is already enrolled", True), ("is not enrolled", False)],
)
def test_an_enrolled_machine_owner_key_is_found(root: Path, answer: str, enrolled: bool) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    put(root, "mok.pub", "")
    # mokutil --test-key exits with 1 for an enrolled key.
    put(root, "usr/bin/mokutil", f'#!/bin/sh\necho "$2 {answer}"\nexit 1\n').chmod(0o755)
    assert bool(read(root).mok_keys) is enrolled


def test_key_of_dkms_is_read_from_its_configuration(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    put(root, "etc/dkms/framework.conf", "# mok_certificate=/var/lib/dkms/mok.pub\n")
    assert read(root).dkms_key == ""
    put(root, "etc/dkms/framework.conf.d/own.conf", 'mok_certificate="/root/company.der"\n')
    put(root, "root/company.der", "")
    put(root, "usr/bin/mokutil", "#!/bin/sh\necho $2 is already enrolled\n").chmod(0o755)
    found = read(root)
    assert found.dkms_key == "/root/company.der" and found.dkms_key in found.mok_keys


def test_nouveau_and_a_pending_reboot_are_found(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    (root / "sys/module/nouveau").mkdir(parents=True)
    assert read(root).reboot_packages is None
    put(root, "run/reboot-required", "*** System restart required ***\n")
    assert read(root).reboot_packages == ()
    put(root, "run/reboot-required.pkgs", "linux-base\nlinux-base\nlibc6\n")
    state = read(root)
    assert state.nouveau and state.reboot_packages == ("libc6", "linux-base")


def test_an_initramfs_older_than_the_blacklist_is_stale(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    put(root, f"boot/vmlinuz-{NEXT}", "")
    initrd = put(root, f"boot/initrd.img-{NEXT}", "")
    os.utime(initrd, (1, 1))
    assert not read(root).initramfs_stale
    put(root, BLACKLIST.lstrip("/"), "")
    assert read(root).initramfs_stale
    os.utime(root / BLACKLIST.lstrip("/"), (0, 0))
    assert not read(root).initramfs_stale


def test_cdi_specs_are_read_with_their_devices(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    spec = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "all"}]}
    put(root, "var/run/cdi/nvidia.yaml", yaml.safe_dump(spec))
    put(root, "etc/cdi/broken.yaml", "devices: [")
    state = read(root)
    assert state.cdi_devices == {"all"}
    assert {each.path: each.kind for each in state.cdi} == {
        "/var/run/cdi/nvidia.yaml": "nvidia.com/gpu",
        "/etc/cdi/broken.yaml": "unreadable",
    }


def test_files_that_a_cdi_spec_names_and_that_are_gone_are_reported(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    old, new = "/usr/lib/libcuda.so.580.95.05", "/usr/lib/libcuda.so.580.159.03"
    mounts = [{"hostPath": path, "containerPath": path} for path in (old, new)]
    spec = {"kind": "nvidia.com/gpu", "containerEdits": {"mounts": mounts}, "devices": []}
    put(root, "var/run/cdi/nvidia.yaml", yaml.safe_dump(spec))
    put(root, new.lstrip("/"), "")
    (found,) = read(root).cdi
    assert found.gone == (old,)


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_files_that_are_gone_are_told_with_their_spec_in_yaml_and_json(
    root: Path, form: str
) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    hook = {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": ["x"]}
    edits = {
        "deviceNodes": [{"path": "/dev/nvidia-uvm"}, {"path": "/dev/nvidiactl"}],
        "hooks": [hook],
    }
    spec = {"kind": "nvidia.com/gpu", "containerEdits": edits, "devices": [{"name": "all"}]}
    text = json.dumps(spec) if form == "json" else yaml.safe_dump(spec)
    put(root, f"etc/cdi/nvidia.{form}", text)
    put(root, "dev/nvidiactl", "")
    (found,) = read(root).cdi
    assert found.nodes == ("/dev/nvidia-uvm", "/dev/nvidiactl")
    assert found.gone == ("/dev/nvidia-uvm", "/usr/bin/nvidia-cdi-hook")


def test_the_toolkits_refresh_units_are_found(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    put(root, "lib/systemd/system/nvidia-cdi-refresh.path", "")
    assert read(root).units == ("nvidia-cdi-refresh.path",)


def test_gpus_are_listed_once_a_driver_runs(root: Path) -> None:
    write_tree(root, PROFILES["two-rtx-4090"])
    add_smi(root)
    put(root, "proc/driver/nvidia/version", OPEN)
    first, second = read(root).gpus
    assert (first.index, second.index) == (0, 1)
    assert second.uuid == PROFILES["two-rtx-4090"].gpus[1].uuid
    assert second.pci_address == "00000000:02:00.0"
    assert (first.driver, first.product) == ("580.159.03", "NVIDIA GeForce RTX 4090 (double)")
    assert first.memory_bytes == 24 << 30
    assert (first.power_limit_watts, first.persistence, first.mig) == (450.0, False, False)
    assert first.power_range_watts == (50.0, 1000.0)


def test_a_mismatch_is_reported_in_nvidia_smis_words(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    add_smi(root, "580.173.02")
    put(root, "proc/driver/nvidia/version", OPEN)
    state = read(root)
    assert state.gpus == () and "Driver/library version mismatch" in state.smi_error


def test_wsl_is_known_by_its_kernel_and_asks_windows_nvidia_smi(root: Path) -> None:
    write_tree(root, PROFILES["wsl"])
    add_smi(root, at="usr/lib/wsl/lib/nvidia-smi")
    put(root, "proc/driver/nvidia/version", OPEN)
    state = read(root)
    assert state.is_wsl and state.has_gpu and state.generations == ()
    assert state.wsl_conf == ""
    assert [gpu.product for gpu in state.gpus] == ["NVIDIA GeForce RTX 5070 Ti (double)"]


def test_the_configuration_of_wsl_is_read_as_it_is(root: Path) -> None:
    write_tree(root, PROFILES["wsl"])
    text = "[boot]\nsystemd = false # no\n\n[user]\ndefault=zoë\n"
    put(root, "etc/wsl.conf", text)
    assert read(root).wsl_conf == text


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_configuration_of_wsl_that_an_editor_of_windows_saved(root: Path, encoding: str) -> None:
    write_tree(root, PROFILES["wsl"])
    text = "[boot]\nsystemd = false\n\n[user]\ndefault=zoë\n"
    put(root, "etc/wsl.conf", "").write_bytes(text.encode(encoding))
    assert read(root).wsl_conf == text


def test_on_wsl_the_gpu_of_another_maker_is_none(root: Path) -> None:
    write_tree(root, PROFILES["wsl"])
    assert not read(root).has_gpu
    add_smi(root, at="usr/lib/wsl/lib/nvidia-smi")
    assert read(root).has_gpu and "couldn't communicate" in read(root).smi_error
    (root / "dev/dxg").unlink()
    assert not read(root).has_gpu


def test_numbers_that_nvidia_smi_does_not_give_are_left_out() -> None:
    none = {"power.limit": "[N/A]", "memory": "[N/A]", "least": "[N/A]", "most": "[N/A]"}
    (gpu,) = parse_state([row(**none, name="NVIDIA GB10, rev")]).gpus
    assert gpu.power_limit_watts is None and gpu.power_range_watts is None
    assert (gpu.product, gpu.memory_bytes, gpu.fault) == ("NVIDIA GB10, rev", 0, "")


ROW = {
    "index": "0",
    "uuid": "GPU-1",
    "pci": "00000000:01:00.0",
    "driver": "580.178.04",
    "persistence": "Enabled",
    "power.limit": "300.00",
    "mig": "[N/A]",
    "memory": "16303",
    "least": "100.00",
    "most": "330.00",
    "name": "x",
}


def row(**fields: str) -> str:
    """A GPU as the script reports it, with these fields of nvidia-smi."""
    return f"gpu {', '.join((ROW | fields).values())}"


@pytest.mark.parametrize("field", ["uuid", "pci", "driver", "memory"])
@pytest.mark.parametrize("value", ["[GPU is lost]", "[Unknown Error]", "ERR!"])
def test_an_error_in_place_of_identity_or_memory_is_a_fault(field: str, value: str) -> None:
    (gpu,) = parse_state([row(**{field: value})]).gpus
    assert gpu.fault == value.strip("[]")


def test_memory_that_is_no_number_is_a_fault() -> None:
    (gpu,) = parse_state([row(memory="Unknown Error")]).gpus
    assert (gpu.fault, gpu.memory_bytes) == ("Unknown Error", 0)


@pytest.mark.parametrize("field", ["persistence", "power.limit", "mig", "least", "most"])
@pytest.mark.parametrize(
    "value",
    [
        *("[Unknown Error]", "[Not Found]", "[Insufficient Permissions]", "ERR!"),
        "[Requested functionality has been deprecated]",
    ],
)
def test_an_error_in_another_field_does_not_condemn_a_gpu(field: str, value: str) -> None:
    (gpu,) = parse_state([row(**{field: value})]).gpus
    assert gpu.fault == "" and gpu.memory_bytes == 16303 << 20


@pytest.mark.parametrize("status", [0, 14])
@pytest.mark.parametrize("word", ["WARNING", "Warning"])
def test_a_warning_beside_the_gpus_costs_none_of_them(root: Path, status: int, word: str) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    said = f"{row().removeprefix('gpu ')}\n{word}: infoROM is corrupted at gpu 0000:01:00.0"
    text = f"#!/bin/sh\necho '{said}'\nexit {status}\n"
    put(root, "usr/bin/nvidia-smi", text).chmod(0o755)
    state = read(root)
    assert ([gpu.uuid for gpu in state.gpus], state.smi_error) == (["GPU-1"], "")
    assert state.smi_warnings == ("infoROM is corrupted at gpu 0000:01:00.0",)


def test_a_warning_without_a_gpu_is_an_error() -> None:
    state = parse_state(["gpu WARNING: infoROM is corrupted at gpu 0000:01:00.0"])
    assert "infoROM is corrupted" in state.smi_error and state.smi_warnings == ()


def test_a_gpu_that_could_be_cut_by_mig_and_is_not(root: Path) -> None:
    write_tree(root, PROFILES["h200-nvswitch"])
    add_smi(root)
    put(root, "proc/driver/nvidia/version", OPEN)
    assert [(gpu.mig, gpu.fault) for gpu in read(root).gpus] == [(False, "")] * 2


def test_a_lost_gpu_beside_a_healthy_one(root: Path) -> None:
    write_tree(root, PROFILES["two-rtx-4090"])
    add_smi(root)
    put(root, "proc/driver/nvidia/version", OPEN)
    put(root, "run/double/1.lost", "")
    first, second = read(root).gpus
    assert (first.fault, second.fault) == ("", "GPU is lost")


def test_no_dash_specific_shell_is_needed() -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    command = Nvidia().command([], [], BLACKLIST)
    subprocess.run(["bash", "--posix", "-n", "-c", command], check=True)


def test_an_nvidia_smi_that_hangs_in_the_kernel_does_not_hang_the_run(root: Path) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    put(root, "usr/bin/nvidia-smi", "#!/bin/sh\ntrap '' TERM INT HUP\nsleep 60\n").chmod(0o755)
    # Its 30 s are one here.
    put(root, "usr/bin/timeout", '#!/bin/sh\nshift\nexec /usr/bin/timeout 1 "$@"\n').chmod(0o755)
    begun = time.monotonic()
    state = read(root)
    assert time.monotonic() - begun < 20
    assert "did not answer" in state.smi_error


@pytest.mark.parametrize(
    "row",
    [
        "Unable to determine the device handle for GPU0000:01:00.0: Unknown Error",
        "[Unknown Error], a, b, c, d, e, f, g, h, i, j",
    ],
)
def test_a_row_that_names_no_gpu_is_an_error_of_nvidia_smi(root: Path, row: str) -> None:
    write_tree(root, PROFILES["rtx-5070-ti"])
    put(root, "usr/bin/nvidia-smi", f"#!/bin/sh\necho '{row}'\n").chmod(0o755)
    state = read(root)
    assert state.gpus == () and row in state.smi_error
