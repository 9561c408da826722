"""Names, types and labels of metrics, as a program offers them; values are left out."""

import re
from collections import defaultdict
from pathlib import Path

RECORDED = Path(__file__).parent / "recorded"

_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="(?:[^"\\]|\\.)*",?')


def offered(text: str) -> dict[str, set[str]]:
    """Labels by the name of each series in the text format of Prometheus."""
    found: dict[str, set[str]] = defaultdict(set)
    for line in text.splitlines():
        if line and not line.startswith("#"):
            sample = _SAMPLE.match(line)
            assert sample, line
            found[sample[1]] |= {*_LABEL.findall(sample[2] or "")}
    return dict(found)


def written(found: dict[str, set[str]]) -> str:
    """As in a recorded file: a name and its labels on a line."""
    return "".join(
        f"{name} {' '.join(sorted(found[name]))}".rstrip() + "\n" for name in sorted(found)
    )


def recorded(program: str) -> dict[str, set[str]]:
    """What was recorded of a program that is not at hand in every test."""
    lines = (RECORDED / f"{program}.txt").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {row[0]: {*row[1:]} for row in rows}
