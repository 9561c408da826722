"""A pytest plugin: the result of each check of a server, as a record and below its traceback.

A check is a test in tests/server. Its id consists of its component and name; the name, as a
sentence, is also what it expects. A test only needs `assert seen == expected`, in this order, for
its failure to report both.
"""

import os
import re
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from llmhost.checks import catalogue
from llmhost.checks.applies import is_left_out
from llmhost.checks.command_log import asked
from llmhost.checks.describe import describe
from llmhost.verify.report import (
    ON_THE_SERVER,
    WAITING,
    Asked,
    Check,
    Extent,
    LeftOut,
    Outcome,
    Record,
    Server,
    Started,
    line,
    redacted,
)

_SEEN = 2_000
_TRACE = 12_000
"""Maximum length of each text of a record."""


_WHICH = ("settings", "server_name")
_TESTINFRA_COMPLAINS = ("Unexpected exit code ", "Unexpected output ")


class Recorder:
    """Follows one run of the server tests; `path` gets the records, if there is one."""

    def __init__(self, path: Path | None) -> None:
        # Unbuffered, because several processes write their lines to the end of it.
        self._file = path.open("ab", buffering=0) if path else None
        self._silent: set[str] = set()
        self._shown_silent: set[str] = set()
        self._asked_by_fixture: dict[str, list[Asked]] = {}
        self._asked_before = 0
        self._compared: tuple[str, object, object] | None = None

    def _write(self, record: Record) -> None:
        if self._file:
            text = redacted(line(record), [os.environ.get("LLMHOST_API_KEY", "")])
            self._file.write(text.encode())

    def waiting(self, server: str, sentence: str) -> None:
        """A server is not ready for its checks."""
        self._write(Started(server, WAITING, sentence))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write(Extent(len(session.items)))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: Any, request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        """Describe each server once; commands of a fixture count for all checks that use it."""
        begun = len(asked)
        met = fixturedef.argname == "host"
        try:
            value = yield
            if met and self._file:
                self._write(describe(value, *map(request.getfixturevalue, _WHICH)))
        except pytest.fail.Exception as failure:
            if met:
                self._no_answer(request.getfixturevalue("server_name"), str(failure))
            raise
        self._asked_by_fixture[fixturedef.argname] = [] if met else asked[begun:]
        return value

    def _no_answer(self, server: str, problem: str) -> None:
        self._silent.add(server)
        self._write(Server(server, answers=False, problem=problem))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        """Run a check, and report it to the terminal and to JUnit only if it applies."""
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if any(map(is_left_out, reports)):
            item.session.testscollected -= 1  # for pytest's own progress
        else:
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
            item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._compared = None
        check = _entry(item)
        item.user_properties.append(("check", check.id))  # for JUnit
        self._write(Started(_server(item), check.component, check.sentence))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._asked_before = len(asked)
        return (yield)

    def pytest_assertrepr_compare(self, op: str, left: object, right: object) -> None:
        """pytest calls this for a failed comparison in an assert."""
        self._compared = (op, left, right)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.when == "call" or (report.when == "setup" and not report.passed):
            if is_left_out(report):
                self._write(LeftOut(_server(item)))
                return report
            check = self._check(item, call, report)
            if check.outcome == "failed":
                report.sections.append((check.id, _advice(check)))
            self._write(check)
            self._show_silence_once(item, report)
        return report

    def _show_silence_once(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """The terminal shows for one check that a server does not answer; others are skipped."""
        server = _server(item)
        if not report.failed or server not in self._silent:
            return
        if server in self._shown_silent and _entry(item).component != "connection":
            report.outcome = "skipped"
            where = (str(item.path), 0, f"Skipped: not checked: {server} does not answer")
            report.longrepr = where
        self._shown_silent.add(server)

    def _check(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
    ) -> Check:
        entry, server = _entry(item), _server(item)
        outcome = _outcome(report)
        reason = _skip_reason(report)
        if report.failed and server in self._silent and entry.component != "connection":
            outcome, reason = "not checked", "the server does not answer"
        seen, expected = self._difference(call) if outcome == "failed" else ("", "")
        return Check(
            host=server,
            component=entry.component,
            id=entry.id,
            sentence=entry.sentence,
            outcome=outcome,
            seconds=round(report.duration, 3),
            proof=_proof(item) if outcome == "passed" else "",
            seen=seen,
            expected=expected,
            todo=entry.todo if outcome == "failed" else "",
            reason=reason,
            trace=report.longreprtext[-_TRACE:] if outcome == "failed" else "",
            asked=self._commands(item, report),
        )

    def _difference(self, call: pytest.CallInfo[None]) -> tuple[str, str]:
        """Actual and expected state, each as text; the second may be empty."""
        message = str(call.excinfo.value) if call.excinfo else ""
        if message.startswith(_TESTINFRA_COMPLAINS):
            last = asked[-1]
            return f"`{last.command}` ended with {last.status}: {last.complaint}", "exit status 0"
        told = "" if message.startswith("assert ") else message.partition("\nassert ")[0]
        if self._compared is None:
            where = re.search(r"^ \+ +where (.*)", message, re.MULTILINE)
            return (told or (where[1] if where else message))[:_SEEN], ""
        operator, left, right = self._compared
        shown = right if operator in ("in", "not in") else left
        seen = (
            told if told and _text(shown) in told else ": ".join(filter(None, [told, _text(shown)]))
        )
        return seen[:_SEEN], _expected(operator, left, right)[:_SEEN]

    def _commands(self, item: pytest.Item, report: pytest.TestReport) -> tuple[Asked, ...]:
        names = getattr(item, "fixturenames", [])
        prepared = [each for name in names for each in self._asked_by_fixture.get(name, [])]
        own = asked[self._asked_before :] if report.when == "call" else []
        return tuple(dict.fromkeys([*prepared, *own]))


def _expected(operator: str, left: object, right: object) -> str:
    """The condition of an assert: `seen == expected`, `expected in seen`, `seen < expected`."""
    if operator in ("in", "not in"):
        return f"{_text(left)} is {operator} it"
    if (operator, right) == ("is not", None):
        return "something"
    return _text(right) if operator in ("==", "is") else f"{operator} {_text(right)}"


def _text(value: object) -> str:
    """A compared value as readable text."""
    if isinstance(value, str):
        return value or "nothing"
    return repr(value) if value or isinstance(value, (bool, int, float)) else "nothing"


def _server(item: pytest.Item) -> str:
    """The server of a check."""
    return str(_cases(item).get("server_name", ""))


def _cases(item: pytest.Item) -> dict[str, object]:
    """The parameters of a check; only tests with parameters have this attribute."""
    specification = getattr(item, "callspec", None)
    return specification.params if specification else {}


def _entry(item: pytest.Item) -> catalogue.Entry:
    """The check, with its case in brackets if it has several."""
    found = catalogue.entry(item.path, item.name)
    cases = [str(value) for key, value in _cases(item).items() if key != "server_name"]
    told = f"{found.sentence} ({', '.join(cases)})" if cases else found.sentence
    return replace(found, sentence=told)


def _outcome(report: pytest.TestReport) -> Outcome:
    if report.skipped:
        return "not checked"
    return "passed" if report.passed else "failed"


def _skip_reason(report: pytest.TestReport) -> str:
    """The reason that a test gives for a skipped check."""
    if not (report.skipped and isinstance(report.longrepr, tuple)):
        return ""
    return report.longrepr[2].removeprefix("Skipped: ").removeprefix("not checked: ")


def _proof(item: pytest.Item) -> str:
    told = dict(item.user_properties)
    return str(told.get("proof", ON_THE_SERVER))


def _advice(check: Check) -> str:
    """Text that pytest prints below the traceback of a failed check."""
    rows = [("server", check.host), ("check", check.sentence), ("seen", check.seen)]
    rows += [("expected", check.expected), ("do", check.todo)]
    return "\n".join(f"{label + ':':<10}{text}" for label, text in rows if text)
