"""`llmhost vram` on inventory files, without any host."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.model_files import decoder, sizes, write_gguf

DATA: dict[str, Any] = {
    "services": ["llamacpp"],
    "llamacpp_gpu": 0,
    "api_clients": [{"name": "app", "sha256": "a" * 64}],
    "vram_gpus_gib": [12.0],
}


Shown = subprocess.CompletedProcess[str]


def vram(inventory: Path, *options: str) -> Shown:
    """In a process of its own: reading an inventory patches sockets and threads."""
    command = [sys.executable, "-m", "llmhost.cli", "vram", str(inventory), *options]
    return subprocess.run(command, capture_output=True, text=True)


def run(folder: Path, data: dict[str, Any], *options: str, host: str = "llm") -> Shown:
    inventory = folder / "site.py"
    inventory.write_text(f"servers = [({host!r}, {data!r})]\n")
    return vram(inventory, *options)


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Any]:
    """EEVE-Korean-10.8B, Q5_K_M."""
    tensors = decoder(
        "Q5_K_M", layers=48, hidden=4096, feed_forward=14336, kv_size=1024, vocabulary=40_960
    )
    path = write_gguf(tmp_path / "eeve.gguf", tensors, sizes(48, 4096, 32, 8, 32_768))
    return {"name": "search", "source": str(path), "sha256": "1" * 64}


def test_plan_that_fits_is_shown_with_status_0(tmp_path: Path, model: dict[str, Any]) -> None:
    shown = run(tmp_path, DATA | {"models": [model]})
    assert shown.returncode == 0, shown.stderr
    assert "llm, GPU 0" in shown.stdout
    for figure in (" 7.02 ", " 0.75 ", " 0.53 ", " 8.30 "):
        assert figure in shown.stdout
    assert "fits: 3.20 GiB free, plus 0.50 GiB in reserve" in shown.stdout


def test_bar_shows_used_free_and_reserved_parts(tmp_path: Path, model: dict[str, Any]) -> None:
    shown = run(tmp_path, DATA | {"models": [model], "vram_reserve_gib": 1.2})
    (bar,) = (line for line in shown.stdout.splitlines() if line.startswith("█"))
    assert bar == "█" * 42 + "░" * 12 + "▒" * 6


def test_bar_shows_what_is_too_much(tmp_path: Path, model: dict[str, Any]) -> None:
    shown = run(tmp_path, DATA | {"models": [model], "vram_gpus_gib": [7.7]})
    assert "█" * 52 + "▓" * 8 in shown.stdout.splitlines()


def test_plan_that_does_not_fit_ends_with_status_2(tmp_path: Path, model: dict[str, Any]) -> None:
    long = model | {"context_tokens": 32_768}
    shown = run(tmp_path, DATA | {"models": [long]})
    assert shown.returncode == 2
    lines = " ".join(shown.stdout.split())
    assert "does not fit: GPU 0 has 12.00 GiB, of which 11.50 GiB are available" in lines
    assert "the models need 13.55 GiB: 2.05 GiB too much" in lines
    assert "would fit: 'search' fits with context_tokens = 21504" in lines
    assert "would fit: 'search' fits as IQ3_M" in lines


def test_json_has_the_same_figures(tmp_path: Path, model: dict[str, Any]) -> None:
    shown = run(tmp_path, DATA | {"models": [model]}, "--json")
    assert shown.returncode == 0
    data = json.loads(shown.stdout)
    assert data["schema"] == 1
    (host,) = data["hosts"]
    assert (host["host"], host["fits"]) == ("llm", True)
    (gpu,) = host["gpus"]
    assert gpu["total_bytes"] == 12 * 2**30
    assert gpu["free_bytes"] == gpu["total_bytes"] - gpu["reserve_bytes"] - gpu["peak_bytes"]
    (each,) = gpu["models"]
    assert each["cache_bytes"] == 4096 * 2 * 48 * 8 * 128 * 2
    assert each["total_bytes"] == sum(each[f"{p}_bytes"] for p in ("weights", "cache", "work"))
    assert (each["model"], each["measured"], gpu["problems"]) == ("search", False, [])


def test_json_tells_what_would_fit(tmp_path: Path, model: dict[str, Any]) -> None:
    shown = run(tmp_path, DATA | {"models": [model], "vram_gpus_gib": [8]}, "--json")
    assert shown.returncode == 2
    (gpu,) = json.loads(shown.stdout)["hosts"][0]["gpus"]
    assert not gpu["fits"]
    assert "too much" in gpu["problems"][0]
    assert gpu["remedies"]


def test_measured_model_is_marked(tmp_path: Path, model: dict[str, Any]) -> None:
    shown = run(tmp_path, DATA | {"models": [model | {"vram_gib": 7.5}]})
    assert " 7.50 " in shown.stdout
    assert "measured" in shown.stdout


def test_gpu_without_models_is_empty(tmp_path: Path) -> None:
    shown = run(tmp_path, {"vram_gpus_gib": [8]})
    assert shown.returncode == 0
    assert "at its peak: nothing" in shown.stdout


def test_host_without_gpu_has_nothing_to_fit(tmp_path: Path) -> None:
    shown = run(tmp_path, {}, host="application")
    assert shown.returncode == 0
    assert "application: nothing runs on a GPU" in shown.stdout


def test_fraction_of_the_gpu_is_counted(tmp_path: Path, model: dict[str, Any]) -> None:
    data = DATA | {"models": [model], "llamacpp_gpu_fraction": 0.9}
    shown = run(tmp_path, data, "--json")
    (gpu,) = json.loads(shown.stdout)["hosts"][0]["gpus"]
    assert gpu["shares"] == [{"service": "llamacpp", "bytes": int(0.9 * 12 * 2**30)}]
    assert gpu["peak_bytes"] == gpu["shares"][0]["bytes"]


def test_gpu_named_by_uuid_is_left_to_the_host(tmp_path: Path, model: dict[str, Any]) -> None:
    uuid = "GPU-5b1c3ad6-0000-4000-8000-00000000000a"
    shown = run(tmp_path, DATA | {"models": [model], "llamacpp_gpu": uuid})
    assert shown.returncode == 0
    assert "'llamacpp' selects its GPU by UUID" in shown.stdout
    assert "at its peak: nothing" in shown.stdout


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"vram_gpus_gib": []}, "llm: vram_gpus_gib is empty"),
        ({"vram_gpus_gib": [-1]}, "vram_gpus_gib[0]: is -1; write a number of GiB above 0"),
        ({"llamacpp_gpu": 3}, "'llamacpp' runs on GPU 3, but the last one is GPU 0"),
        ({"nonsense": 1}, "nonsense: unknown key"),
    ],
)
def test_error_ends_with_status_1(
    tmp_path: Path, model: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    shown = run(tmp_path, DATA | {"models": [model]} | changes)
    assert shown.returncode == 1
    assert expected in " ".join(shown.stderr.split())


def test_missing_inventory_and_unknown_host_are_errors(tmp_path: Path) -> None:
    shown = vram(tmp_path / "none.py")
    assert shown.returncode == 1
    assert "not found; give a file" in shown.stderr
    shown = run(tmp_path, DATA, "--limit", "other")
    assert shown.returncode == 1
    assert "no host or group matches" in shown.stderr
