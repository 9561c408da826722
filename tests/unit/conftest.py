"""How properties are tested, and what no unit test may do to its process."""

import fcntl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from gevent.monkey import is_module_patched

from llmhost.history.run_record import LOCK

# Noisy machines, and the same examples in every run.
hypothesis.settings.register_profile(
    "llmhost",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("llmhost")


@pytest.fixture(autouse=True)
def unpatched() -> Iterator[None]:
    """Importing pyinfra_cli patches threads, which ends a pytest-xdist worker before its time."""
    yield
    patched = is_module_patched("threading")  # type: ignore[no-untyped-call]
    assert not patched, "this test imported pyinfra_cli"


@pytest.fixture
def own_machine() -> Iterator[None]:
    """For deploys of this machine: one at a time, as their lock demands, in all pytest workers."""
    with Path(tempfile.gettempdir(), "llmhost-tests-deploy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The shell that held the lock of an earlier deploy ends a little after it.
        if Path(LOCK).exists():
            subprocess.run(["flock", "-w", "10", LOCK, "true"], check=True)
        yield


@pytest.fixture
def unreachable(tmp_path: Path) -> Path:
    """An inventory with one server that cannot be reached."""
    place = tmp_path / "site.py"
    # Nothing listens on this port of the loopback.
    data = {"ssh_hostname": "127.0.0.1", "ssh_port": 1, "services": ["redis"]}
    data["api_clients"] = [{"name": "app", "sha256": "cd" * 32}]
    place.write_text(f"hosts = [('far', {data!r})]\n")
    return place
