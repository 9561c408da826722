"""Metrics of GPUs by real nvidia-ml-py, which loads the double of libnvidia-ml.so.1."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pynvml
import pytest

from llmhost.resources import FILES
from tests.doubles.nvidia.hardware import PROFILES
from tests.doubles.nvidia.packages import build_library
from tests.monitoring.metrics import offered, recorded

LOADED = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Double\n"


@dataclass(frozen=True)
class Gpus:
    """Two GPUs of the double."""

    directory: Path

    def read(self, *, failures: str = "", status: int = 0) -> str:
        """What gpus.py prints."""
        (self.directory / "failures").write_text(failures)
        environment = {
            f"LLMHOST_DOUBLE_{key.upper()}": str(self.directory / key)
            for key in ("gpus", "loaded", "failures", "state")
        }
        environment["LLMHOST_DOUBLE_OWNER"] = f"test-{os.getpid()}"
        environment["LD_LIBRARY_PATH"] = str(self.directory)
        script = str(FILES / "monitoring/gpus.py")
        command = [sys.executable, "-I", script, str(self.directory)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout

    def value(self, name: str, text: str) -> list[float]:
        lines = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return [float(line.rpartition(" ")[2]) for line in lines]


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Gpus:
    directory = tmp_path_factory.mktemp("gpus")
    build_library(directory / "libnvidia-ml.so.1", "580.159.03")
    shutil.copy(pynvml.__file__, directory)
    (directory / "gpus").write_text(PROFILES["two-rtx-4090"].gpu_list)
    (directory / "loaded").write_text(LOADED)
    (directory / "state").mkdir()
    (directory / "state/1.throttled").write_text("64")  # thermal, by the hardware
    return Gpus(directory)


def test_names_and_labels_are_those_of_nvidias_exporter(gpus: Gpus) -> None:
    found = offered(gpus.read())
    known = recorded("dcgm")
    ours = {name: labels for name, labels in found.items() if name.startswith("DCGM_")}
    assert len(ours) == 8
    assert ours == {name: known[name] for name in ours}


def test_values_have_its_units(gpus: Gpus) -> None:
    text = gpus.read()
    assert gpus.value("llmhost_gpus", text) == [2]
    assert gpus.value("DCGM_FI_DEV_GPU_TEMP", text) == [40, 40]
    assert gpus.value("DCGM_FI_DEV_POWER_USAGE", text) == [25.5, 25.5]
    assert gpus.value("DCGM_FI_DEV_SM_CLOCK", text) == [210, 210]
    assert gpus.value("DCGM_FI_DEV_FB_FREE", text) == [24 * 1024, 24 * 1024]
    slow = [line for line in text.splitlines() if line.startswith("llmhost_gpu_throttled{")]
    assert [line.partition('reason="')[2] for line in slow if line.endswith(" 1")] == [
        'thermal_hardware"} 1'
    ]


def test_lost_gpu_does_not_answer_and_the_others_do(gpus: Gpus) -> None:
    text = gpus.read(failures="nvmlDeviceGetHandleByIndex_v2@1 15\n")
    assert gpus.value("llmhost_gpus", text) == [1]
    assert gpus.value("DCGM_FI_DEV_GPU_TEMP", text) == [40]


def test_value_that_a_gpu_does_not_report_is_missing(gpus: Gpus) -> None:
    text = gpus.read(failures="nvmlDeviceGetUtilizationRates 3\n")
    assert gpus.value("DCGM_FI_DEV_GPU_UTIL", text) == []
    assert gpus.value("DCGM_FI_DEV_FB_USED", text) == [0, 0]


def test_library_that_does_not_fit_the_driver_is_a_failure(gpus: Gpus) -> None:
    (gpus.directory / "loaded").write_text(LOADED.replace("580.159.03", "570.1"))
    try:
        assert gpus.read(status=1) == ""
    finally:
        (gpus.directory / "loaded").write_text(LOADED)
