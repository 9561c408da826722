"""The tests that docs/evidence names exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_named_tests_exist() -> None:
    text = (ROOT / "docs/evidence/faults.md").read_text()
    named, file = [], ""
    for place, name in re.findall(r"`(tests/[\w/.]+\.py)?(?:::(\w+))?`", text):
        file = place or file
        named += [(file, name)] if place or name else []
    assert len(named) > 30
    missing = [(file, name) for file, name in named if f"def {name}" not in _text(file)]
    assert missing == []


def _text(file: str) -> str:
    return (ROOT / file).read_text()
