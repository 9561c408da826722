"""The summary of a run of the server tests.

A test's record has a property `proof` if it involves a GPU; skipped tests are not checked.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

ON_HARDWARE, ON_A_DOUBLE = "proven on hardware", "proven on a double"


def summary(
    passed: Iterable[pytest.TestReport], skipped: Iterable[pytest.TestReport]
) -> Iterator[str]:
    """A line of counts, and one for each reason of skipped checks."""
    worth = Counter(str(dict(each.user_properties).get("proof", "")) for each in passed)
    reasons = Counter(_reason(each) for each in skipped)
    for proof in list(worth):
        if proof.startswith("not checked"):
            reasons[_without_prefix(proof)] += worth.pop(proof)
    counts = [f"{worth[proof]} {proof}" for proof in (ON_HARDWARE, ON_A_DOUBLE)]
    yield (
        f"GPU: {', '.join(counts)}; without a GPU: {worth['']} proven; "
        f"not checked: {reasons.total()}"
    )
    for reason, count in sorted(reasons.items()):
        yield f"  not checked ({count}): {reason}"


def _reason(report: pytest.TestReport) -> str:
    """The argument of pytest.skip."""
    told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return _without_prefix(told.removeprefix("Skipped: "))


def _without_prefix(sentence: str) -> str:
    return sentence.removeprefix("not checked: ")
