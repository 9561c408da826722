"""Checks that have nothing to check on a server are left out of every report.

A check that does not apply is not a gap: no service of that kind is declared, or the server is of
another kind. A check that applies and could not be made is: it uses pytest.skip, and is reported.
"""

from typing import NoReturn

import pytest

_MARK = "does not apply: "


def does_not_apply(reason: str) -> NoReturn:
    """End a check, or a fixture, that this server has no use for."""
    pytest.skip(_MARK + reason)


def is_left_out(report: pytest.TestReport) -> bool:
    """Whether a test ended by `does_not_apply`."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    return report.skipped and reason.removeprefix("Skipped: ").startswith(_MARK)
