"""The pages of the documentation that messages name are at hand wherever llmhost is installed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmhost.cli.app import app
from llmhost.resources import PACKAGE, PAGES, TEMPLATES

ROOT = Path(__file__).parents[2]


def test_pages_are_listed_and_printed() -> None:
    listed = CliRunner().invoke(app, ["docs"]).stdout.splitlines()
    assert {line.split()[0] for line in listed} == {path.stem for path in PAGES.glob("*.md")}
    for line in listed:
        name, title = line.split(maxsplit=1)
        printed = CliRunner().invoke(app, ["docs", name])
        assert printed.stdout == (ROOT / f"docs/{name}.md").read_text(), name
        assert printed.stdout.startswith(f"# {title}\n")


def test_schema_that_the_help_of_a_command_names_is_printed() -> None:
    shown = CliRunner().invoke(app, ["status", "--help"], env={"COLUMNS": "200"}).stdout
    [name] = re.findall(r"see llmhost docs (\S+\.schema\.json)", shown)
    printed = CliRunner().invoke(app, ["docs", name])
    assert printed.stdout == (ROOT / "docs" / name).read_text()


def test_unknown_page_is_an_error_with_a_suggestion() -> None:
    result = CliRunner().invoke(app, ["docs", "optoins"])
    assert result.exit_code == 1
    assert "'optoins' is not a page; did you mean options?" in result.stderr


def texts(path: Path) -> Iterator[str]:
    """The strings of a module, except docstrings."""
    tree = ast.parse(path.read_text())
    documented = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in documented:
            continue
        if isinstance(node.value, str):
            yield node.value


SOURCES = [*PACKAGE.rglob("*.py"), *(ROOT / "inventory").glob("*.py")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_messages_name_no_file_that_an_installed_user_lacks(path: Path) -> None:
    assert [text for text in texts(path) if re.search(r"\bdocs/[\w-]+\.md", text)] == []


def test_named_pages_exist() -> None:
    everything = [*(text for path in SOURCES for text in texts(path))]
    everything += [path.read_text() for path in TEMPLATES.rglob("*.j2")]
    pattern = r"llmhost docs ([a-z-]+(?:\.schema\.json)?)\b"
    named = {name for text in everything for name in re.findall(pattern, text)}
    named -= {"lists"}  # llmhost docs lists them
    assert {"network", "options", "plan", "profiles"} <= named
    files = {name: name if name.endswith(".json") else f"{name}.md" for name in named}
    assert [name for name, file in sorted(files.items()) if not (PAGES / file).is_file()] == []
