"""All checks by id, and what to do if one fails.

`python -m llmhost.checks.catalogue` writes the list into docs/troubleshooting.md
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmhost.checks.next_steps import NEXT_STEPS

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "troubleshooting.md"
MARK = "<!-- From here on written by script/docs. -->\n"


_CAPITALS = ["API", "CDI", "CPU", "GPU", "JSON", "NVIDIA", "NVML", "TLS", "WSL"]
_SPELT = {word.lower(): word for word in _CAPITALS} | {"gpus": "GPUs", "docker": "Docker"}


@dataclass(frozen=True)
class Entry:
    """One check: its place, its name, and the next step if it fails."""

    component: str
    id: str
    sentence: str
    todo: str


def entry(path: Path, test: str) -> Entry:
    """The check of a test. Its id consists of the component and the test's name, such as
    `docker.engine-runs-now-and-at-boot`: renaming the test changes the id."""
    component = path.stem.removeprefix("test_")
    words = re.sub(r"\[.*", "", test).removeprefix("test_")
    name = f"{component}.{words.replace('_', '-')}"
    told = " ".join(_SPELT.get(word, word) for word in words.split("_"))
    return Entry(component, name, told, NEXT_STEPS.get(name, ""))


def entries() -> Iterator[Entry]:
    """All checks, by component, in the order of their files."""
    for path in sorted(HERE.rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield entry(path, node.name)


def section() -> str:
    """The list of checks for docs/troubleshooting.md."""
    lines, last = [], ""
    for each in entries():
        if each.component != last:
            lines += ["", f"### `{each.component}`", ""]
            last = each.component
        lines.append(f"- `{each.id}`: {each.todo}")
    return "\n".join(lines) + "\n"


def page() -> str:
    """docs/troubleshooting.md with the current list."""
    return PAGE.read_text(encoding="utf-8").partition(MARK)[0] + MARK + section()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
