"""A deploy that is killed leaves nothing that the next one does not heal."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.programs import running

pytestmark = pytest.mark.machines
ROOT = Path(__file__).parents[2]
SEED = 20261121
# A first deploy takes this demo about 35 s; each run goes on where the one before it was killed.
SECONDS = [random.Random(SEED + run).uniform(0.5, 8) for run in range(4)]
DEMO = [sys.executable, "-m", "testbed.demo", "--model", "tiny"]


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    env = os.environ | {"LLMHOST_DEMO": str(tmp_path / "demo")}
    yield env
    subprocess.run([*DEMO, "--down"], cwd=ROOT, env=env, check=True, capture_output=True)


def killed_after(seconds: float, env: dict[str, str]) -> bool:
    """Start the demo, and SIGKILL its pyinfra after that time; False if it was done by then."""
    with running(
        DEMO, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        pid = _pyinfra_of(demo)
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        said, _ = demo.communicate(timeout=300)
    return "failed: see its output above" in said


def _pyinfra_of(demo: "subprocess.Popen[str]") -> int:
    """Id of the pyinfra that this demo has started; waits until it has."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        command = ["pgrep", "--parent", str(demo.pid), "--full", "bin/pyinfra"]
        found = subprocess.run(command, capture_output=True, text=True).stdout.split()
        if found:
            return int(found[0])
        assert demo.poll() is None, demo.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("the demo did not start pyinfra")


@pytest.mark.faults
def test_runs_killed_at_any_point_are_healed_by_the_next(env: dict[str, str]) -> None:
    killed = [killed_after(seconds, env) for seconds in SECONDS]
    assert killed[:3] == [True, True, True], "too fast a machine: shorten SECONDS"
    healed = subprocess.run(DEMO, cwd=ROOT, env=env, capture_output=True, text=True)
    assert healed.returncode == 0, healed.stdout + healed.stderr  # deployed, and verified
    pyinfra = str(Path(sys.executable).with_name("pyinfra"))
    command = [pyinfra, "inventory/demo.py", "deploy.py", "-y", "--json"]
    again = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    operations = json.loads(again.stdout)["results"]["operations"]
    assert len(operations) > 10
    assert [each["name"] for each in operations if each["success"]] == [], again.stderr
