"""Options of `pytest tests/server`; `llmhost verify` passes them."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("llmhost")
    group.addoption("--site", help="JSON file: merged inventory data of each server, by name")
    group.addoption("--outside", help="command prefix that runs a command on another machine")
    group.addoption("--records", type=Path, help="file that gets a record of each check")
    group.addoption("--evidence", help="directory where the proof that a GPU is used is kept")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("site"):
        from tests.server.recorder import Recorder  # other tests have no use for it

        config.pluginmanager.register(Recorder(config.getoption("records")), "llmhost-recorder")
