"""Checks that do not apply to a server are left out of its report.

A check does not apply if its service is not declared, or the server has another role. A check that
applies but cannot run uses pytest.skip and is reported.
"""

from typing import NoReturn

import pytest

_MARK = "does not apply: "


def does_not_apply(reason: str) -> NoReturn:
    """End a check or fixture that does not apply to this server."""
    pytest.skip(_MARK + reason)


def is_left_out(report: pytest.TestReport) -> bool:
    """Whether a test ended by `does_not_apply`."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    return report.skipped and reason.removeprefix("Skipped: ").startswith(_MARK)
