"""What the tests of all services have in common."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _service_runs(request: pytest.FixtureRequest, stopped: dict[str, str], started: None) -> None:
    """The tests of a service are in the module of its name."""
    service = request.module.__name__.rpartition("test_")[2]
    if service in stopped:
        pytest.skip(f"not checked: the service {service} was {stopped[service]}")
