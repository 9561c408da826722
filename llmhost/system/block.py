"""A part of a file that somebody else owns: ours stands between two marks, the rest stays. Pure."""

import re


def with_block(text: str, block: str) -> str:
    """`text` with our block at its end and everything else as it was.

    The block's own first and last line are its marks, and so must be unlike any other line.
    """
    first, *_, last = block.splitlines()
    rest = without_block(text, first, last)
    if rest and not rest.endswith("\n"):
        rest += "\n"
    return f"{rest}\n{block}"


def without_block(text: str, first: str, last: str) -> str:
    """`text` without the block between these two lines, if there is one."""
    pattern = rf"^\n?{re.escape(first)}\n.*?^{re.escape(last)}(\n|\Z)"
    return re.sub(pattern, "", text, flags=re.DOTALL | re.MULTILINE)
