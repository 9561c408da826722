"""The workflows call only what is there, and only actions that nobody can replace."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "script" / "test").read_text()
PYTEST = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
LANES = set(re.findall(r"^#   script/test ([a-z]+|--) ", SCRIPT, re.MULTILINE))
WORKFLOWS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
JOBS = {
    f"{workflow}.{name}": job
    for workflow, content in WORKFLOWS.items()
    for name, job in content["jobs"].items()
}
STEPS = [step for job in JOBS.values() for step in job["steps"]]


def test_lanes_are_those_that_the_documentation_names() -> None:
    text = (ROOT / "docs/ci.md").read_text()
    assert set(re.findall(r"^sudo script/test ([a-z]+|--) ", text, re.MULTILINE)) == LANES


def test_every_longer_lane_is_explained_and_a_marker() -> None:
    (longer,) = re.findall(r'^longer="(.*)"$', SCRIPT, re.MULTILINE)
    markers = {marker.partition(":")[0] for marker in PYTEST["markers"]}
    assert set(longer.split()) <= LANES & markers


def test_lanes_find_every_test_but_those_of_a_server() -> None:
    places = {f"tests/{path.parts[0]}" for path in _tests()}
    assert places == {*PYTEST["testpaths"], "tests/server"}


def _tests() -> list[Path]:
    return [path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")]


def _lanes(workflow: str) -> set[str]:
    """What the workflow's jobs give script/test as its first argument."""
    jobs = WORKFLOWS[workflow]["jobs"].values()
    return {step["run"].split()[2] for job in jobs for step in job["steps"] if "run" in step}


def test_lanes_of_the_workflow_are_lanes_of_the_script() -> None:
    called = _lanes("ci")
    assert called <= LANES and {"fast", "server", "vm", "--"} <= called


def test_every_longer_lane_runs_at_night() -> None:
    (longer,) = re.findall(r'^longer="(.*)"$', SCRIPT, re.MULTILINE)
    (job,) = WORKFLOWS["nightly"]["jobs"].values()
    assert "script/test ${{ matrix.lane }}" in job["steps"][-1]["run"]
    assert job["strategy"]["matrix"]["lane"] == longer.split()
    assert job["strategy"]["fail-fast"] is False


def test_every_action_is_pinned_by_commit() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", each) for each in used)


@pytest.mark.parametrize("job", JOBS)
def test_checkout_leaves_no_credentials(job: str) -> None:
    checkouts = [step for step in JOBS[job]["steps"] if "checkout@" in step.get("uses", "")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False]


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_workflow_may_only_read(workflow: str) -> None:
    assert WORKFLOWS[workflow]["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("job", JOBS)
def test_no_job_runs_for_ever(job: str) -> None:
    longest = 300 if job.startswith("nightly.") else 90
    assert 0 < JOBS[job]["timeout-minutes"] <= longest


def test_unknown_lane_is_refused() -> None:
    result = subprocess.run([ROOT / "script" / "test", "fats"], capture_output=True, text=True)
    assert result.returncode == 2 and "no lane is called fats" in result.stderr


def test_paths_in_the_script_exist() -> None:
    named = re.findall(r"tests/[\w/.]+", SCRIPT)
    assert named and [each for each in named if not (ROOT / each).exists()] == []


def test_paths_in_the_workflow_exist() -> None:
    named = re.findall(r"tests/[\w/.]+", " ".join(step.get("run", "") for step in STEPS))
    assert named and all((ROOT / each).exists() for each in named)
