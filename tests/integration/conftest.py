"""One LAN with one machine for all integration tests of a run."""

from collections.abc import Iterator

import pytest

from testbed import Lan, Machine


@pytest.fixture(scope="session")
def lan() -> Iterator[Lan]:
    """A LAN of its own; whatever a test puts on it goes with it."""
    with Lan.create("integration") as lan:
        yield lan


@pytest.fixture(scope="session")
def machine(lan: Lan) -> Machine:
    """A bare server, shared by the tests: each prepares what it needs and expects no more."""
    return lan.machine("server")
