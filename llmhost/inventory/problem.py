"""Mistakes in an inventory, and how to fix them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake: `key` in the inventory, `what` is wrong, and how to `fix` it."""

    key: str
    what: str
    fix: str = ""

    def sentence(self, host: str) -> str:
        """One line for the terminal."""
        advice = "; ".join(part for part in (self.what, self.fix) if part)
        return f"{host}: {self.key}: {advice}"


class SettingsError(ValueError):
    """All mistakes found in one host's inventory data."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problems in the settings")
        self.problems = tuple(problems)
