"""CUDA versions against drivers."""

import pytest

from llmhost.nvidia.cuda import KNOWN_CUDA, at_risk, floor, own_driver, too_old, unknown
from llmhost.nvidia.data import version


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("580.159.03", (580, 159, 3)),
        ("580.159.03-0ubuntu0.24.04.1", (580, 159, 3)),
        ("1:595.71.05-1ubuntu1", (595, 71, 5)),
        ("550.163.01+dfsg-1", (550, 163, 1)),
    ],
)
def test_packages_and_drivers_have_the_same_version(text: str, numbers: tuple[int, ...]) -> None:
    assert version(text) == numbers


@pytest.mark.parametrize(
    ("cuda", "driver", "verdict"),
    [
        ("11.8", "535.309.01", "runs"),
        ("12.4", "580.159.03", "runs"),
        ("12.8", "535.309.01", "at risk"),
        ("12.1", "525.60.13", "at risk"),  # not listed: that of the next, 12.4
        ("12.9", "470.256.02", "too old"),
        ("13.0", "580.159.03", "runs"),
        ("13.0", "570.211.01", "too old"),
        ("13.2", "580.159.03", "at risk"),
        ("13.2", "595.71.05", "runs"),
        ("13.3", "595.71.05", "at risk"),
        ("13.4", "610.57.04", "at risk"),
        ("13.4", "615.71.09", "runs"),
        ("13.5", "620.70.06", "runs"),
        ("14.0", "580.178.04", "at risk"),  # newer than the matrix
    ],
)
def test_a_service_runs_or_is_at_risk_or_its_driver_is_too_old(
    cuda: str, driver: str, verdict: str
) -> None:
    services = {"vllm": cuda}
    found = {
        "too old": list(too_old(version(driver), services)),
        "at risk": list(at_risk(version(driver), services)),
    }
    assert [name for name, sentences in found.items() if sentences] == (
        [] if verdict == "runs" else [verdict]
    )


def test_the_sentences_name_service_version_and_driver() -> None:
    (old,) = too_old((570, 211, 1), {"vllm": "13.0"})
    assert "'vllm'" in old and "CUDA 13.0" in old and "580" in old and "570.211.01" in old
    (risk,) = at_risk((580, 159, 3), {"vllm": "13.2"})
    assert "cudaErrorUnsupportedPtxVersion" in risk and "595.45.04" in risk


def test_cuda_newer_than_the_matrix_is_a_warning_that_says_what_is_assumed() -> None:
    assert own_driver("14.0") == own_driver("13.5") == (620, 70, 6)
    (sentence,) = unknown({"vllm": "14.0", "ollama": "13.5"})
    assert (
        "CUDA 14.0" in sentence and "assuming that it needs driver 620.70.06 or newer" in sentence
    )


def test_no_cuda_version_is_newer_than_its_floor_demands() -> None:
    assert all(floor(cuda) <= own_driver(cuda)[0] for cuda in KNOWN_CUDA)
