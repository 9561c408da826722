"""A mistake in an inventory, told to the person who can mend it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake: `key` as written in the inventory, `what` is wrong, `fix` is what to do."""

    key: str
    what: str
    fix: str = ""

    def sentence(self, host: str) -> str:
        """One line for the terminal; it never holds the value that was given."""
        advice = "; ".join(part for part in (self.what, self.fix) if part)
        return f"{host}: {self.key}: {advice}"


class SettingsError(ValueError):
    """All mistakes found in one host's inventory data."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problem(s) in the settings")
        self.problems = tuple(problems)
