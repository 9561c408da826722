"""The probe with real nvidia-ml-py, which loads the double of libnvidia-ml.so.1."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml
import pytest

from tests.doubles.nvidia.hardware import PROFILES, Profile
from tests.doubles.nvidia.packages import build_library
from tests.programs import running

PROBE = Path(__file__).parents[2] / "files/nvidia_driver/nvml_probe.py"
LOADED = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Double\n"

OWNER = f"test-{os.getpid()}"
"""The double sees every process of this machine, also those of other tests' containers."""


@dataclass(frozen=True)
class Bench:
    """Where the double finds its GPUs, the driver and the failures it shall show."""

    directory: Path

    def set_up(self, profile: Profile, loaded: str = LOADED, failures: str = "") -> None:
        (self.directory / "gpus").write_text(profile.gpu_list)
        (self.directory / "loaded").write_text(loaded)
        (self.directory / "failures").write_text(failures)

    def probe(self, status: int = 0) -> dict[str, Any]:
        """What the probe prints, run as on a host: nothing but its own directory to import from."""
        environment = {
            f"LLMHOST_DOUBLE_{key.upper()}": str(self.directory / key)
            for key in ("gpus", "loaded", "failures", "state")
        }
        environment["LLMHOST_DOUBLE_OWNER"] = OWNER
        environment["LD_LIBRARY_PATH"] = str(self.directory)
        command = [sys.executable, "-B", "-s", "-E", str(self.directory / "nvml_probe.py")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    directory = tmp_path_factory.mktemp("nvml")
    build_library(directory / "libnvidia-ml.so.1", "580.159.03")
    shutil.copy(PROBE, directory)
    shutil.copy(pynvml.__file__, directory)
    return Bench(directory)


@pytest.fixture
def on_gpu() -> Iterator[Callable[[int], int]]:
    """Starts a process that the double takes for one that uses a GPU; returns its pid."""
    started: list[subprocess.Popen[bytes]] = []

    def start(index: int) -> int:
        environment = {**os.environ, f"LLMHOST_DOUBLE_GPU_{index}": OWNER}
        started.append(subprocess.Popen(["sleep", "60"], env=environment))
        return started[-1].pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_every_gpu_is_described(bench: Bench) -> None:
    profile = PROFILES["two-rtx-4090"]
    bench.set_up(profile)
    found = bench.probe()
    assert (found["driver"], found["cuda"]) == ("580.159.03", "13.0")
    assert [gpu["uuid"] for gpu in found["gpus"]] == [gpu.uuid for gpu in profile.gpus]
    gpu = found["gpus"][1]
    assert (gpu["name"], gpu["pci"]) == ("NVIDIA GeForce RTX 4090 (double)", "00000000:02:00.0")
    assert (gpu["memory_total"], gpu["power_limit_watts"]) == (24 << 30, 450.0)
    assert gpu["persistence"] is False


def test_a_process_is_listed_on_its_gpu_only(bench: Bench, on_gpu: Callable[[int], int]) -> None:
    bench.set_up(PROFILES["two-rtx-4090"])
    pid = on_gpu(1)
    zeroth, first = bench.probe()["gpus"]
    assert zeroth["processes"] == []
    (process,) = first["processes"]
    assert (process["pid"], process["command"], process["container"]) == (pid, "sleep", None)
    assert process["memory"] == first["memory_used"] > 0


def test_more_processes_than_first_asked_for_are_all_listed(
    bench: Bench, on_gpu: Callable[[int], int]
) -> None:
    bench.set_up(PROFILES["rtx-5070-ti"])
    pids = {on_gpu(0) for _ in range(12)}
    (gpu,) = bench.probe()["gpus"]
    assert {process["pid"] for process in gpu["processes"]} == pids


def test_only_processes_that_computed_have_work(bench: Bench, on_gpu: Callable[[int], int]) -> None:
    bench.set_up(PROFILES["two-rtx-4090"])
    on_gpu(0)
    loop = [sys.executable, "-c", "while True: pass"]
    environment = {**os.environ, "LLMHOST_DOUBLE_GPU_1": OWNER}
    with running(loop, env=environment) as busy:
        while not (found := bench.probe()["gpus"])[1]["work"]:
            assert busy.poll() is None
    assert [gpu["work"] for gpu in found] == [[], [{"pid": busy.pid, "percent": 40}]]


def test_gpu_that_reports_no_work_says_why(bench: Bench) -> None:
    bench.set_up(PROFILES["rtx-5070-ti"], failures="nvmlDeviceGetProcessUtilization 3\n")
    (gpu,) = bench.probe()["gpus"]
    assert (gpu["work"], gpu["unavailable"]["work"]) == (None, "Not Supported")


@pytest.mark.parametrize("function", ["nvmlDeviceGetComputeRunningProcesses_v3"])
def test_what_a_driver_does_not_tell_is_null_with_the_reason(bench: Bench, function: str) -> None:
    bench.set_up(PROFILES["rtx-5070-ti"], failures=f"{function} 3\n")
    (gpu,) = bench.probe()["gpus"]
    assert gpu["processes"] is None
    assert gpu["unavailable"]["processes"] == "Not Supported"
    assert gpu["memory_total"] == 16 << 30


def test_a_lost_gpu_is_told(bench: Bench) -> None:
    bench.set_up(PROFILES["rtx-5070-ti"], failures="nvmlDeviceGetMemoryInfo 15\n")
    (gpu,) = bench.probe()["gpus"]
    assert gpu["unavailable"]["memory_used"] == "GPU is lost"


def test_a_gpu_without_a_handle_hides_no_other(bench: Bench) -> None:
    bench.set_up(PROFILES["two-rtx-4090"], failures="nvmlDeviceGetHandleByIndex_v2@0 15\n")
    lost, healthy = bench.probe()["gpus"]
    assert (lost["uuid"], lost["unavailable"]["uuid"]) == (None, "GPU is lost")
    assert healthy["uuid"] == PROFILES["two-rtx-4090"].gpus[1].uuid


def test_mig_that_is_off_is_no_missing_mig(bench: Bench) -> None:
    bench.set_up(PROFILES["h200-nvswitch"])
    assert [gpu["mig"] for gpu in bench.probe()["gpus"]] == [False, False]


@pytest.mark.parametrize(
    ("loaded", "failures", "code"),
    [
        ("", "", "NVMLError_DriverNotLoaded"),
        (LOADED.replace("159.03", "173.02"), "", "NVMLError_LibRmVersionMismatch"),
        (LOADED, "nvmlInitWithFlags 999\n", "NVMLError_Unknown"),
    ],
)
def test_nvml_that_does_not_work_is_an_error_with_its_name(
    bench: Bench, loaded: str, failures: str, code: str
) -> None:
    bench.set_up(PROFILES["rtx-5070-ti"], loaded, failures)
    assert bench.probe(status=1)["code"] == code


def test_a_host_without_the_library_is_told_so(bench: Bench, tmp_path: Path) -> None:
    for name in ("nvml_probe.py", "pynvml.py"):
        shutil.copy(bench.directory / name, tmp_path)
    assert Bench(tmp_path).probe(status=1)["code"] == "NVMLError_LibraryNotFound"


def test_containers_are_found_in_both_kinds_of_cgroup() -> None:
    name = "0123456789abcdef" * 4
    namespace: dict[str, Any] = {"__name__": "probe"}
    exec(compile(PROBE.read_text(), str(PROBE), "exec"), namespace)
    pattern = namespace["CONTAINER"]
    for line in (f"0::/system.slice/docker-{name}.scope\n", f"0::/docker/{name}\n"):
        assert pattern.search(line).group(1) == name
    assert pattern.search("0::/user.slice/user-0.slice/session-1.scope\n") is None
