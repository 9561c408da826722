"""Where commands print tables."""

import os

from rich.console import Console

_WIDTH = 1000
"""Columns of a file or a pipe: more than any table has."""


def table_console() -> Console:
    """As wide as its terminal, or as `COLUMNS` says. Otherwise lines are as long as they are: rich
    takes 80 columns for a file or a pipe, and breaks names that one would search for."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH
    return console
