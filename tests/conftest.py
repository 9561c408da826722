"""What all tests and the programs that they start begin with."""

import signal

import pytest

# A shell script starts background jobs with SIGINT ignored, and every child inherits that:
# programs that a test interrupts would go on. A handler is reset to the default in new programs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with machines first: they take long, and the quick tests at the end keep all workers
    busy."""
    long = {item.path for item in items if item.get_closest_marker("machines")}
    items.sort(key=lambda item: item.path not in long)
