"""Every program that is called on a host is in a minimal system, installed before, or expected to
be absent; and a shell script is read right."""

import ast
import dataclasses
import inspect
import pkgutil
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import FactBase

import llmhost.facts
from llmhost.resources import FILES, TEMPLATES
from tests.host_programs import HANDLED, INSTALLED, KNOWN, MINIMAL
from tests.shell_programs import programs

_ROOT = Path(__file__).parents[2]
_SAMPLE = "192.0.2.1"
_EXAMPLES: dict[object, object] = {str: _SAMPLE, int: 1, float: 1.0, bool: True}


def _example(hint: Any) -> Any:
    """A value of an annotated type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _EXAMPLES:
        return _EXAMPLES[hint]
    if origin is tuple:
        return tuple(_example(each) for each in arguments if each is not ...)
    if dataclasses.is_dataclass(hint):
        fields = typing.get_type_hints(hint).items()
        return hint(**{name: _example(each) for name, each in fields})  # type: ignore[operator]
    if origin in (list, Sequence):
        return [_example(arguments[0])]
    if origin is Mapping:
        return {_example(arguments[0]): _example(arguments[1])}
    return _example(next(each for each in arguments if each is not type(None)))  # X | None


def _facts() -> Iterator[type[FactBase[Any]]]:
    for found in pkgutil.iter_modules(llmhost.facts.__path__):
        module = import_module(f"llmhost.facts.{found.name}")
        for member in vars(module).values():
            own = inspect.isclass(member) and member.__module__ == module.__name__
            if own and issubclass(member, FactBase):
                yield member


def _of_fact(fact: type[FactBase[Any]]) -> str:
    hints = typing.get_type_hints(fact.command)
    arguments = {name: _example(hint) for name, hint in hints.items() if name != "return"}
    return str(fact().command(**arguments))


def _of_script(path: Path) -> str:
    """A script, with the functions of its directory."""
    functions = path.with_name("functions.sh")
    return "\n".join(each.read_text() for each in (functions, path) if each.exists())


def _of_template(path: Path) -> str:
    """A template as if it were a script: every branch of it, with variables for its values."""
    text = path.read_text()
    if extended := re.search(r"{% extends \"(.*?)\" %}", text):
        text = _of_template(TEMPLATES / extended[1]) + text
    return re.sub(r"{{.*?}}", "$value", re.sub(r"{%.*?%}|{#.*?#}", "", text), flags=re.DOTALL)


def _of_checks(path: Path) -> str:
    """The commands that a module of server tests runs, as far as they are written out."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    run = {"run", "check_output"}
    called = (c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr in run)
    return "\n".join(_literal(call.args[0]) for call in called if call.args)


def _literal(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _literal(v) if isinstance(v, ast.Constant) else "$value" for v in node.values
        )
    return ""


SCRIPTS = {
    **{fact.__name__: _of_fact(fact) for fact in _facts()},
    **{str(path.relative_to(FILES)): _of_script(path) for path in FILES.rglob("*.sh")},
    **{
        str(path.relative_to(TEMPLATES)): _of_template(path)
        for path in TEMPLATES.glob("*/*.j2")
        if _of_template(path).startswith("#!/bin/sh")
    },
    **{path.name: _of_checks(path) for path in (_ROOT / "tests/server").glob("*.py")},
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_program_that_is_called_is_known(name: str) -> None:
    assert programs(SCRIPTS[name]) - {_SAMPLE} <= KNOWN


def test_facts_scripts_and_checks_are_all_looked_at() -> None:
    assert {"HostNetworking", "history/lock.sh", "apt/functions.sh"} <= SCRIPTS.keys()
    assert {"network/trial.sh.j2", "healing/llmhost-heal.j2", "test_docker.py"} <= SCRIPTS.keys()


def test_no_program_is_known_in_two_ways() -> None:
    listed = [*" ".join((*MINIMAL.values(), *INSTALLED.values())).split(), *HANDLED]
    assert len(listed) == len(KNOWN)


@pytest.mark.parametrize(
    ("script", "called"),
    [
        ("a b | c; (d)", {"a", "c", "d"}),
        ("x=$(a) b >c", {"a", "b"}),
        ("f() { a; }; f; /usr/bin/b", {"a", "b"}),
        ("if a; then echo b; fi; while read -r c; do d; done", {"a", "d"}),
        ("timeout 3 bash -c 'a | b'", {"timeout", "bash", "a", "b"}),
        ("sh -ec 'a'", {"sh", "a"}),
        ("c | xargs -r timeout 20 a", {"c", "xargs", "timeout", "a"}),
        ('command -v a; "$b" c; case $(d) in e) f ;; esac', {"d", "f"}),
        ("cat <<E\na $(b)\nE", {"cat", "b"}),
    ],
)
def test_programs_of_a_script_are_found(script: str, called: set[str]) -> None:
    assert programs(script) == called
