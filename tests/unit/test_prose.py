"""The words of the documentation: spelling, and the phrases that docs/glossary.md rules out."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
CODE = ("benchmarks", "inventory", "llmhost", "tasks", "testbed", "tests/server")
"""Directories of Python whose strings, docstrings and comments are checked as well."""
GENERATED = {"options.md", "nvidia-matrix.md", "licences.md"}
CODE_BLOCK = re.compile(r"^```.*?^```$|^    .*?$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`]*`")
MARK = "<!-- From here on written by script/docs. -->"
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if path.name not in GENERATED
)
MODULES = sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py"))


@cache
def ruled_out() -> re.Pattern[str]:
    """The second column of the table below "Write / not"; a phrase may be split by a line break."""
    table = GLOSSARY.read_text(encoding="utf-8").partition("## Write / not")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "`" in line]
    phrases = [each for row in rows for each in re.findall(r"`([^`]+)`", row.split("|")[2])]
    words = "|".join(re.escape(each).replace(r"\ ", r"\s+") for each in phrases)
    return re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.IGNORECASE)


def findings(text: str, first_line: int = 1) -> list[str]:
    """Every phrase that is ruled out, with its line."""
    return [
        f"line {first_line + text.count(chr(10), 0, each.start())}: {' '.join(each[0].split())}"
        for each in ruled_out().finditer(text)
    ]


def prose(page: Path) -> str:
    """A page with its code blanked out and without what other files are the source of."""
    text = page.read_text(encoding="utf-8").partition(MARK)[0]
    return blank(INLINE_CODE, blank(CODE_BLOCK, text))


def blank(pattern: re.Pattern[str], text: str) -> str:
    """The text without what matches; its lines stay where they are."""
    return pattern.sub(lambda each: re.sub(r"[^\n]", "_", each[0]), text)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """The strings of more than one word, docstrings and comments of a module, with their first
    lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, blank(INLINE_CODE, node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], blank(INLINE_CODE, token.string)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_follows_the_glossary(page: Path) -> None:
    assert findings(prose(page)) == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_module_follows_the_glossary(module: Path) -> None:
    source = module.read_text(encoding="utf-8")
    assert [each for line, text in texts(source) for each in findings(text, line)] == []


def test_words_are_spelled_correctly() -> None:
    program = Path(sys.executable).with_name("codespell")
    done = subprocess.run(
        [program, *PAGES, *(ROOT / folder for folder in CODE)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout == ""
    assert done.returncode == 0, done.stderr


def test_phrase_is_found_across_lines_and_in_strings_but_not_in_code(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("One Can\nnot `can not` this.\n\n```sh\necho can not\n```\nTold.\n")
    assert findings(prose(page)) == ["line 1: Can not", "line 7: Told"]
    source = 'x = 1  # it is told\n"""So it\ncan not be."""\n'
    found = [each for line, text in texts(source) for each in findings(text, line)]
    assert found == ["line 3: can not", "line 1: told"]
