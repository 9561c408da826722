"""Options of `pytest tests/server`; `llmhost verify` passes them."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("llmhost")
    group.addoption("--inventory", help="inventory file of the servers under test")
    group.addoption("--server", action="append", default=[], help="a host of it; repeat")
    group.addoption("--outside", help="command prefix that runs a command on another machine")
