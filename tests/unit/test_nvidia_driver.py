"""The choice of a driver: every release, source and generation, and every refusal."""

from datetime import date
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from llmhost.nvidia.branches import FLOORS, below_floor, maintained
from llmhost.nvidia.data import MATRIX, Generation
from llmhost.nvidia.driver import RELEASES, Choice, Unsatisfiable, Wish, choose
from llmhost.nvidia.generation import GENERATIONS, NEWER

TODAY = date(2026, 11, 28)
LONG_TERM = 580
G: Any = SimpleNamespace(**GENERATIONS, NEWER=NEWER)

UBUNTU = [release for release in RELEASES if release.startswith("ubuntu")]
DEBIAN = [release for release in RELEASES if release.startswith("debian")]
CLOSED = [G.MAXWELL, G.PASCAL, G.VOLTA]
OPEN = [G.BLACKWELL, G.RUBIN, G.NEWER]
EITHER = [G.TURING, G.AMPERE, G.ADA, G.HOPPER]


def wish(**options: Any) -> Wish:
    return Wish(**{"today": TODAY, **options})


def refused(wish: Wish, release: str, *generations: Generation) -> str:
    with pytest.raises(Unsatisfiable) as error:
        choose(wish, release, generations)
    return " ".join(error.value.sentences)


@pytest.mark.parametrize("release", [*UBUNTU, "debian-12"])
@pytest.mark.parametrize("generation", [*CLOSED, *EITHER, G.BLACKWELL])
def test_the_default_is_the_long_term_branch(release: str, generation: Generation) -> None:
    choice = choose(wish(), release, [generation])
    module = "closed" if generation in CLOSED else "open"
    source = "distribution" if release in UBUNTU else "nvidia"
    assert choice == Choice(LONG_TERM, module, source)  # type: ignore[arg-type]


@pytest.mark.parametrize("generation", [*EITHER, G.BLACKWELL])
def test_debian_13_has_no_580_and_gets_the_oldest_branch_with_fixes(
    generation: Generation,
) -> None:
    assert choose(wish(), "debian-13", [generation]) == Choice(595, "open", "nvidia")


@pytest.mark.parametrize("generation", CLOSED)
def test_an_old_gpu_on_debian_13_is_refused_with_the_releases_that_serve_it(
    generation: Generation,
) -> None:
    sentence = refused(wish(), "debian-13", generation)
    assert f"{generation.title} ends with branch 580" in sentence
    assert "NVIDIA's repository for debian-13 has 590, 595, 610, 615" in sentence
    assert "install ubuntu-22.04 or ubuntu-24.04 or ubuntu-26.04 or debian-12" in sentence


@pytest.mark.parametrize("release", RELEASES)
def test_rubin_gets_the_first_branch_that_knows_it(release: str) -> None:
    assert choose(wish(), release, [G.RUBIN]).branch == 615


@pytest.mark.parametrize("release", RELEASES)
def test_a_gpu_newer_than_the_matrix_gets_what_the_newest_one_needs_and_a_note(
    release: str,
) -> None:
    choice = choose(wish(), release, [G.NEWER])
    assert (choice.branch, choice.module) == (615, "open")
    assert f"newer than the matrix of {MATRIX.checked}: it is assumed" in choice.notes[0]


def test_a_branch_is_left_on_the_day_after_its_end() -> None:
    end = date(2027, 3, 31)
    assert choose(wish(today=end), "debian-13", [G.ADA]).branch == 595
    assert choose(wish(today=date(2027, 4, 1)), "debian-13", [G.ADA]).branch == 615
    assert "ended on 2027-03-31" in refused(
        wish(branch=595, today=date(2027, 4, 1)), "debian-13", G.ADA
    )


def test_what_a_host_needs_of_nvidias_repository_decides_the_source() -> None:
    assert choose(wish(), "ubuntu-24.04", [G.BLACKWELL], nvidia_only=True).source == "nvidia"


def test_debian_12_packages_a_closed_module_only() -> None:
    own = wish(source="distribution", allow_unmaintained=True)
    assert choose(own, "debian-12", [G.ADA]).module == "closed"
    asked = wish(source="distribution", allow_unmaintained=True, module="open")
    assert 'nvidia_driver_source = "nvidia"' in refused(asked, "debian-12", G.ADA)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("old", CLOSED)
@pytest.mark.parametrize("new", OPEN)
def test_a_mix_that_no_module_serves_is_refused(
    release: str, old: Generation, new: Generation
) -> None:
    sentence = refused(wish(), release, old, new, G.ADA)
    assert old.title in sentence and new.title in sentence and "remove one of the GPUs" in sentence


@pytest.mark.parametrize("old", CLOSED)
@pytest.mark.parametrize("other", EITHER)
def test_an_old_gpu_beside_a_newer_one_gets_the_closed_module(
    old: Generation, other: Generation
) -> None:
    choice = choose(wish(), "ubuntu-24.04", [old, other])
    assert choice == Choice(LONG_TERM, "closed", "distribution")


@pytest.mark.parametrize(
    ("module", "generation"), [("open", G.PASCAL), ("open", G.VOLTA), ("closed", G.BLACKWELL)]
)
def test_a_module_that_does_not_know_the_gpu_is_refused(
    module: Literal["open", "closed"], generation: G
) -> None:
    sentence = refused(wish(module=module), "ubuntu-24.04", generation)
    assert generation.title in sentence and 'nvidia_driver_module = "auto"' in sentence


@pytest.mark.parametrize("module", ["open", "closed"])
def test_from_turing_to_hopper_the_operator_may_choose(module: Literal["open", "closed"]) -> None:
    assert choose(wish(module=module), "ubuntu-24.04", EITHER).module == module


@pytest.mark.parametrize("generation", CLOSED)
def test_an_old_gpu_ends_with_the_long_term_branch(generation: Generation) -> None:
    sentence = refused(wish(branch=595), "ubuntu-24.04", generation)
    assert f"{generation.title} ends with branch {LONG_TERM}" in sentence


def test_blackwell_is_refused_on_a_branch_that_does_not_know_it() -> None:
    asked = wish(branch=535, allow_unmaintained=True)
    assert "needs branch 570 or newer" in refused(asked, "ubuntu-22.04", G.BLACKWELL)


@pytest.mark.parametrize("release", DEBIAN)
def test_debians_own_driver_is_refused_as_unmaintained(release: str) -> None:
    sentence = refused(wish(source="distribution"), release, G.ADA)
    assert "no security fixes" in sentence and 'nvidia_driver_source = "nvidia"' in sentence


@pytest.mark.parametrize("release", DEBIAN)
def test_debians_own_driver_can_be_insisted_on_with_a_note(release: str) -> None:
    choice = choose(wish(source="distribution", allow_unmaintained=True), release, [G.ADA])
    assert choice.branch == {"debian-12": 535, "debian-13": 550}[release]
    assert "no security fixes" in choice.notes[0]


@pytest.mark.parametrize("release", DEBIAN)
def test_debians_own_driver_never_serves_blackwell(release: str) -> None:
    asked = wish(source="distribution", allow_unmaintained=True)
    sentence = refused(asked, release, G.BLACKWELL)
    assert 'set nvidia_driver_source = "nvidia"' in sentence


@pytest.mark.parametrize("branch", [535, 550, 570, 575, 590, 610])
def test_branches_without_security_fixes_are_refused(branch: int) -> None:
    # Whether the release packages it or not, and from either source.
    assert refused(wish(branch=branch), "ubuntu-24.04", G.ADA)
    assert refused(wish(branch=branch, source="nvidia"), "ubuntu-24.04", G.ADA)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("branch", [580, 595, 615])
def test_nvidias_repository_has_what_the_matrix_lists(release: str, branch: int) -> None:
    asked = wish(branch=branch, source="nvidia")
    if branch == LONG_TERM and release in {"ubuntu-26.04", "debian-13"}:
        assert f"{release} has no branch 580" in refused(asked, release, G.ADA)
    else:
        assert choose(asked, release, [G.ADA]) == Choice(branch, "open", "nvidia")


def test_a_branch_newer_than_the_matrix_is_taken_with_notes_of_what_is_assumed() -> None:
    choice = choose(wish(branch=640, source="nvidia"), "ubuntu-26.04", [G.BLACKWELL])
    assert choice.branch == 640
    assert "assumed that NVIDIA's repository for ubuntu-26.04 has it" in choice.notes[0]
    assert "no security floor is checked" in choice.notes[1]


def test_a_listed_branch_that_no_source_was_seen_to_have_is_a_note_too() -> None:
    (note,) = choose(wish(branch=620), "ubuntu-24.04", [G.ADA]).notes
    assert "assumed that ubuntu-24.04 packages it" in note


def test_a_branch_the_release_does_not_package_is_refused() -> None:
    sentence = refused(wish(branch=590), "ubuntu-24.04", G.ADA)
    assert "packages no branch 590" in sentence and "580, 595, 615" in sentence


def test_cuda_newer_than_the_long_term_branch_selects_the_newest() -> None:
    choice = choose(wish(cuda={"vllm": "13.2"}), "ubuntu-24.04", [G.ADA])
    assert choice == Choice(595, "open", "distribution")


def test_cuda_within_the_long_term_branch_selects_it() -> None:
    choice = choose(wish(cuda={"vllm": "12.8", "ollama": "13.0"}), "ubuntu-24.04", [G.ADA])
    assert choice == Choice(LONG_TERM, "open", "distribution")


@pytest.mark.parametrize(("cuda", "branch"), [("13.3", 615), ("13.4", 615), ("13.5", 615)])
def test_newer_cuda_selects_the_newest_branch_that_is_offered(cuda: str, branch: int) -> None:
    assert choose(wish(cuda={"vllm": cuda}), "ubuntu-24.04", [G.ADA]).branch == branch


def test_cuda_newer_than_the_matrix_is_a_note_and_no_refusal() -> None:
    notes = choose(wish(cuda={"vllm": "14.0"}), "ubuntu-24.04", [G.ADA]).notes
    assert "newer than `llmhost nvidia` knows" in notes[0]


def test_an_old_gpu_keeps_its_branch_and_newer_cuda_is_noted_as_a_risk() -> None:
    choice = choose(wish(cuda={"vllm": "13.2"}), "ubuntu-24.04", [G.PASCAL])
    assert choice.branch == LONG_TERM
    assert "cudaErrorUnsupportedPtxVersion" in choice.notes[0]


def test_cuda_that_the_branch_can_not_run_is_refused() -> None:
    asked = wish(branch=535, allow_unmaintained=True, cuda={"vllm": "13.0"})
    assert "needs driver branch 580" in refused(asked, "ubuntu-22.04", G.ADA)


def test_a_gpu_older_than_maxwell_is_refused() -> None:
    assert "older than Maxwell" in refused(wish(), "ubuntu-24.04", G.LEGACY)


def test_another_distribution_is_refused() -> None:
    assert "fedora-43" in refused(wish(), "fedora-43", G.ADA)


@pytest.mark.parametrize(("branch", "least"), FLOORS.items())
def test_security_floors_are_inclusive(branch: int, least: str) -> None:
    assert below_floor(least) == ""
    assert least in below_floor(f"{branch}.10.01")


def test_the_floors_are_those_of_the_bulletin_of_september() -> None:
    found = {branch: FLOORS[branch] for branch in (580, 595, 610, 615)}
    assert found == {580: "580.178.04", 595: "595.91.07", 610: "610.57.04", 615: "615.71.09"}
    assert "bulletin 5861 of 2026-09-30" in below_floor("580.173.02")


def test_a_branch_without_a_floor_is_not_below_it() -> None:
    assert below_floor("620.10.01") == ""


def test_branches_with_fixes() -> None:
    assert maintained(TODAY) == (580, 595, 615, 620)
