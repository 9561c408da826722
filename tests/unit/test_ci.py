"""The workflow calls only what is there, and only actions that nobody can replace."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
JOBS: dict[str, dict[str, Any]] = yaml.safe_load(
    (ROOT / ".github" / "workflows" / "ci.yml").read_text()
)["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]


def test_lanes_of_the_workflow_are_lanes_of_the_script() -> None:
    script = (ROOT / "script" / "test").read_text()
    lanes = set(re.findall(r"^#   script/test ([a-z]+|--) ", script, re.MULTILINE))
    called = {step["run"].split()[2] for step in STEPS if "run" in step}
    assert called <= lanes and {"fast", "server", "vm", "--"} <= called


def test_every_action_is_pinned_by_commit() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", each) for each in used)


@pytest.mark.parametrize("job", JOBS)
def test_no_job_runs_for_ever(job: str) -> None:
    assert 0 < JOBS[job]["timeout-minutes"] <= 90


def test_unknown_lane_is_refused() -> None:
    result = subprocess.run([ROOT / "script" / "test", "fats"], capture_output=True, text=True)
    assert result.returncode == 2 and "no lane is called fats" in result.stderr


def test_paths_in_the_workflow_exist() -> None:
    named = re.findall(r"tests/[\w/.]+", " ".join(step.get("run", "") for step in STEPS))
    assert named and all((ROOT / each).exists() for each in named)
