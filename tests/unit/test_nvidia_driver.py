"""The choice of a driver: every release, source and generation, and every refusal."""

from typing import Literal

import pytest

from llmhost.nvidia.driver import (
    FLOORS,
    LONG_TERM,
    MAINTAINED,
    NEWEST,
    RELEASES,
    Choice,
    Unsatisfiable,
    Wish,
    below_floor,
    choose,
)
from llmhost.nvidia.generation import Generation as G

UBUNTU = [release for release in RELEASES if release.startswith("ubuntu")]
DEBIAN = [release for release in RELEASES if release.startswith("debian")]
CLOSED = [G.MAXWELL, G.PASCAL, G.VOLTA]
OPEN = [G.BLACKWELL, G.NEWER]
EITHER = [G.TURING, G.AMPERE, G.ADA, G.HOPPER]


def refused(wish: Wish, release: str, *generations: G) -> str:
    with pytest.raises(Unsatisfiable) as error:
        choose(wish, release, generations)
    return " ".join(error.value.sentences)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("generation", [*CLOSED, *EITHER, G.BLACKWELL])
def test_the_default_is_the_long_term_branch(release: str, generation: G) -> None:
    choice = choose(Wish(), release, [generation])
    module = "closed" if generation in CLOSED else "open"
    source = "distribution" if release in UBUNTU else "nvidia"
    assert choice == Choice(LONG_TERM, module, source)  # type: ignore[arg-type]


@pytest.mark.parametrize("release", RELEASES)
def test_a_gpu_newer_than_the_table_gets_the_newest_branch_and_a_note(release: str) -> None:
    choice = choose(Wish(), release, [G.NEWER])
    assert (choice.branch, choice.module) == (NEWEST, "open")
    assert "newer than llmhost knows" in choice.notes[0]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("old", CLOSED)
@pytest.mark.parametrize("new", OPEN)
def test_a_mix_that_no_module_serves_is_refused(release: str, old: G, new: G) -> None:
    sentence = refused(Wish(), release, old, new, G.ADA)
    assert (
        old.value in sentence and new.value in sentence and "take one of the GPUs out" in sentence
    )


@pytest.mark.parametrize("old", CLOSED)
@pytest.mark.parametrize("other", EITHER)
def test_an_old_gpu_beside_a_newer_one_gets_the_closed_module(old: G, other: G) -> None:
    choice = choose(Wish(), "ubuntu-24.04", [old, other])
    assert choice == Choice(LONG_TERM, "closed", "distribution")


@pytest.mark.parametrize(
    ("module", "generation"), [("open", G.PASCAL), ("open", G.VOLTA), ("closed", G.BLACKWELL)]
)
def test_a_module_that_does_not_know_the_gpu_is_refused(
    module: Literal["open", "closed"], generation: G
) -> None:
    sentence = refused(Wish(module=module), "ubuntu-24.04", generation)
    assert generation.value in sentence and 'nvidia_driver_module = "auto"' in sentence


@pytest.mark.parametrize("module", ["open", "closed"])
def test_from_turing_to_hopper_the_operator_may_choose(module: Literal["open", "closed"]) -> None:
    assert choose(Wish(module=module), "ubuntu-24.04", EITHER).module == module


@pytest.mark.parametrize("generation", CLOSED)
def test_an_old_gpu_ends_with_the_long_term_branch(generation: G) -> None:
    sentence = refused(Wish(branch=NEWEST), "ubuntu-24.04", generation)
    assert f"{generation.value} ends with branch {LONG_TERM}" in sentence


def test_blackwell_is_refused_on_a_branch_that_does_not_know_it() -> None:
    wish = Wish(branch=535, allow_unmaintained=True)
    assert "needs branch 570 or newer" in refused(wish, "ubuntu-22.04", G.BLACKWELL)


@pytest.mark.parametrize("release", DEBIAN)
def test_debians_own_driver_is_refused_as_unmaintained(release: str) -> None:
    sentence = refused(Wish(source="distribution"), release, G.ADA)
    assert "no security fixes" in sentence and 'nvidia_driver_source = "nvidia"' in sentence


@pytest.mark.parametrize("release", DEBIAN)
def test_debians_own_driver_can_be_insisted_on_with_a_note(release: str) -> None:
    choice = choose(Wish(source="distribution", allow_unmaintained=True), release, [G.ADA])
    assert choice.branch == {"debian-12": 535, "debian-13": 550}[release]
    assert "no security fixes" in choice.notes[0]


@pytest.mark.parametrize("release", DEBIAN)
def test_debians_own_driver_never_serves_blackwell(release: str) -> None:
    wish = Wish(source="distribution", allow_unmaintained=True)
    assert "needs branch 570 or newer" in refused(wish, release, G.BLACKWELL)


@pytest.mark.parametrize("branch", [535, 550, 570, 575, 590])
def test_branches_without_security_fixes_are_refused(branch: int) -> None:
    # Whether the release packages it or not, and from either source.
    assert refused(Wish(branch=branch), "ubuntu-24.04", G.ADA)
    assert refused(Wish(branch=branch, source="nvidia"), "ubuntu-24.04", G.ADA)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("branch", MAINTAINED)
def test_nvidias_repository_has_every_maintained_branch(release: str, branch: int) -> None:
    wish = Wish(branch=branch, source="nvidia")
    if (release, branch) == ("ubuntu-26.04", LONG_TERM):
        assert "begins with branch 595" in refused(wish, release, G.ADA)
    else:
        assert choose(wish, release, [G.ADA]) == Choice(branch, "open", "nvidia")


def test_ubuntu_26_04_gets_the_first_branch_that_nvidia_has_for_it() -> None:
    choice = choose(Wish(source="nvidia"), "ubuntu-26.04", [G.BLACKWELL])
    assert choice == Choice(NEWEST, "open", "nvidia")
    assert "distribution" in refused(Wish(source="nvidia"), "ubuntu-26.04", G.VOLTA)


def test_a_branch_newer_than_the_table_is_taken_from_nvidia_with_a_note() -> None:
    choice = choose(Wish(branch=615, source="nvidia"), "ubuntu-26.04", [G.BLACKWELL])
    assert choice.branch == 615 and "no security floor" in choice.notes[0]


def test_a_branch_the_release_does_not_package_is_refused() -> None:
    sentence = refused(Wish(branch=615), "ubuntu-24.04", G.ADA)
    assert "packages no branch 615" in sentence and "580, 595" in sentence


def test_cuda_newer_than_the_long_term_branch_selects_the_newest() -> None:
    choice = choose(Wish(cuda={"vllm": "13.2"}), "ubuntu-24.04", [G.ADA])
    assert choice == Choice(NEWEST, "open", "distribution")


def test_cuda_within_the_long_term_branch_selects_it() -> None:
    choice = choose(Wish(cuda={"vllm": "12.8", "ollama": "13.0"}), "ubuntu-24.04", [G.ADA])
    assert choice == Choice(LONG_TERM, "open", "distribution")


def test_an_old_gpu_keeps_its_branch_and_newer_cuda_is_noted_as_a_risk() -> None:
    choice = choose(Wish(cuda={"vllm": "13.2"}), "ubuntu-24.04", [G.PASCAL])
    assert choice.branch == LONG_TERM
    assert "cudaErrorUnsupportedPtxVersion" in choice.notes[0]


def test_cuda_that_the_branch_can_not_run_is_refused() -> None:
    wish = Wish(branch=535, allow_unmaintained=True, cuda={"vllm": "13.0"})
    assert "needs driver branch 580" in refused(wish, "ubuntu-22.04", G.ADA)


def test_a_gpu_older_than_maxwell_is_refused() -> None:
    assert "older than Maxwell" in refused(Wish(), "ubuntu-24.04", G.LEGACY)


def test_another_distribution_is_refused() -> None:
    assert "fedora-43" in refused(Wish(), "fedora-43", G.ADA)


@pytest.mark.parametrize(("branch", "least"), FLOORS.items())
def test_security_floors_are_inclusive(branch: int, least: str) -> None:
    assert below_floor(least) == ""
    assert least in below_floor(f"{branch}.10.01")


def test_a_branch_without_a_floor_is_not_below_it() -> None:
    assert below_floor("615.71.09") == ""
