"""Shell scripts under shellcheck: files, what templates make, and what is put together of both."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from llmhost.docker.image import ModelImage, ServiceImage, WeightsFile
from llmhost.docker.image_scripts import build_script, import_script
from llmhost.resources import FILES, TEMPLATES, script, script_text
from llmhost.system.apt import AptPlan
from llmhost.system.apt import script as apt_script

ROOT = Path(__file__).parents[2]
PLACES = ("files", "script", ".ci", "benchmarks")


class _Anything(ChainableUndefined):
    """Stands for whatever a template is given."""

    def __str__(self) -> str:
        return "7"

    def __iter__(self) -> Iterator[str]:
        yield from ("1", "2")


def shell_files() -> Iterator[Path]:
    found = (path for place in PLACES for path in sorted((ROOT / place).rglob("*")))
    for path in found:
        if path.is_file() and (path.suffix == ".sh" or _is_shell(path.read_bytes())):
            yield path


def _is_shell(content: bytes) -> bool:
    return content.startswith((b"#!/bin/sh\n", b"#!/usr/bin/env bash\n"))


def shell_templates() -> Iterator[str]:
    for path in sorted(TEMPLATES.rglob("*.j2")):
        if path.name.endswith(".sh.j2") or _is_shell(path.read_bytes()):
            yield str(path.relative_to(TEMPLATES))


def faults(text: str, exclude: str = "") -> str:
    shell = "bash" if text.startswith("#!/usr/bin/env bash\n") else "sh"
    command = ["shellcheck", "--shell", shell, *(["--exclude", exclude] if exclude else []), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT).stdout


@pytest.mark.parametrize("path", [*shell_files()], ids=lambda path: str(path.relative_to(ROOT)))
def test_script_is_clean(path: Path) -> None:
    assert faults(path.read_text()) == ""


@pytest.mark.parametrize("path", [*FILES.rglob("*.sh")], ids=lambda path: path.name)
def test_script_for_hosts_is_read_by_any_posix_shell(path: Path) -> None:
    ran = subprocess.run(["dash", "-n", str(path)], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("name", [*shell_templates()])
def test_template_makes_a_clean_script(name: str) -> None:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=_Anything,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    text = environment.get_template(name).render()
    # What is filled in looks constant to the checker.
    assert faults(text, "SC2043,SC2050,SC2157") == ""


WEIGHTS = WeightsFile("ab" * 32, "https://example.com/a b.gguf", True, "/models/it's.gguf")
MODEL = ModelImage("tiny", (WEIGHTS,))
TODO = AptPlan(install=("nginx=1",), remove=("docker.io",), unhold=("a",), hold=("b",), repair=True)


@pytest.mark.parametrize(
    "text",
    [
        apt_script(TODO, ["nginx.service"]),
        import_script(MODEL, "/opt/llmhost/uploads"),
        build_script(ServiceImage("redis", "redis@sha256:1", (MODEL,), ())),
    ],
    ids=["apt", "import", "build"],
)
def test_scripts_put_together_are_clean(text: str) -> None:
    # A script that another shell is given stands in single quotes.
    assert faults(text, "SC2016") == ""


def test_script_gets_its_arguments_as_they_are() -> None:
    words = ["a b", "it's", "$HOME", ""]
    command = script("docker/verify.sh", *words).replace(
        script_text("docker/verify.sh").splitlines()[0], 'printf "%s|" "$0" "$@"; exit'
    )
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert ran.stdout == "docker/verify.sh|" + "".join(f"{word}|" for word in words)


def test_checker_finds_what_is_wrong() -> None:
    assert "SC2086" in faults("#!/bin/sh\nrm -rf $1\n")
    assert "SC3010" in faults("#!/bin/sh\n[[ $1 = a ]]\n")
