"""The frame of all contracts: whom a case ran against is in its report, and in a summary."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from _pytest.terminal import TerminalReporter

from tests.engines.contract import Engine, Outcome, summary, unproven

PLACE = "tests/engines/"


@pytest.fixture(autouse=True)
def _noted(request: pytest.FixtureRequest) -> None:
    if "engine" in request.fixturenames:
        engine: Engine = request.getfixturevalue("engine")
        request.node.user_properties.append(("engine", engine.label))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(PLACE) and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="engines run in namespaces, which need root"))


def _outcomes(reporter: TerminalReporter) -> Iterator[Outcome]:
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in reporter.getreports(outcome):
            if report.nodeid.startswith(PLACE) and (report.when == "call" or not report.passed):
                known = dict(getattr(report, "user_properties", ()))
                engine = tuple(known["engine"]) if "engine" in known else None
                yield Outcome(report.nodeid, outcome, engine, int(known.get("cases", 1)))


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    yield
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter and os.geteuid() == 0 and unproven(_outcomes(reporter)) and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    outcomes = [*_outcomes(terminalreporter)]
    if lines := [*summary(outcomes)]:
        terminalreporter.section("engines")
        for line in lines:
            terminalreporter.line(line)
    for case in unproven(outcomes) if os.geteuid() == 0 else ():
        terminalreporter.line(f"ERROR {case}: no side has run it", red=True)
