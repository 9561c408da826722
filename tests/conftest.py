"""Options of `pytest tests/server`; `llmhost verify` passes them."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("llmhost")
    group.addoption("--site", help="JSON file: merged inventory data of each server, by name")
    group.addoption("--outside", help="command prefix that runs a command on another machine")
    group.addoption("--evidence", help="directory where the proof that a GPU is used is kept")
