"""A block between two marks in a file that llmhost does not own; the rest stays. Pure."""

import re


def with_block(text: str, block: str) -> str:
    """`text` with the block at its end; the rest does not change.

    The first and last line of the block are its marks and must be unique.
    """
    first, *_, last = block.splitlines()
    rest = without_block(text, first, last)
    if rest and not rest.endswith("\n"):
        rest += "\n"
    return f"{rest}\n{block}"


def without_block(text: str, first: str, last: str) -> str:
    """`text` without the block between these two lines, if it has one."""
    pattern = rf"^\n?{re.escape(first)}\n.*?^{re.escape(last)}(\n|\Z)"
    return re.sub(pattern, "", text, flags=re.DOTALL | re.MULTILINE)
