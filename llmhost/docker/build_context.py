"""Files that an image is built from, on the controller."""

import re
from collections.abc import Iterator
from pathlib import Path

from llmhost.system.files import File

IGNORED = (".git", "**/__pycache__", "**/.venv", "**/node_modules")
"""Never part of a context: history, and files that a build creates."""


def context_files(directory: Path) -> tuple[File, ...]:
    """Files below a directory by relative path, without those in its .dockerignore.

    Of the mode only the executable bit counts, because a checkout's modes depend on the umask.
    """
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file())
    ignored = Ignored(directory)
    return tuple(
        File(
            path=str(path.relative_to(directory)),
            content=path.read_bytes(),
            mode="0755" if path.stat().st_mode & 0o100 else "0644",
        )
        for path in paths
        if not ignored(path.relative_to(directory))
    )


class Ignored:
    """Whether a path is left out by .dockerignore: the last matching rule decides.

    https://docs.docker.com/build/concepts/context/#dockerignore-files
    """

    def __init__(self, directory: Path) -> None:
        file = directory / ".dockerignore"
        lines = file.read_text().splitlines() if file.is_file() else []
        self._rules = [*_rules([*IGNORED, *lines])]

    def __call__(self, path: Path) -> bool:
        """Whether the path, relative to the context, or a directory above it is left out."""
        text, ignored = path.as_posix(), False
        for pattern, leave_out in self._rules:
            if pattern.fullmatch(text):
                ignored = leave_out
        return ignored


def _rules(lines: list[str]) -> Iterator[tuple[re.Pattern[str], bool]]:
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        wanted = line.strip().removeprefix("!").strip().strip("/").removeprefix("./")
        yield re.compile(_expression(wanted) + "(/.*)?"), not line.strip().startswith("!")


def _expression(pattern: str) -> str:
    """Go's filepath.Match as a regular expression, with `**` for any directories, as in Docker."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", pattern)
    known = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        piece
        if piece.startswith("[") and piece.endswith("]")
        else known.get(piece, re.escape(piece))
        for piece in pieces
    )


def unpinned_bases(dockerfile: str) -> list[str]:
    """Base images in a Dockerfile that are not pinned by digest."""
    stages: set[str] = set()
    loose = []
    for base, stage in _stages(dockerfile):
        if base not in {*stages, "scratch"} and "@sha256:" not in base:
            loose.append(base)
        stages.add(stage)
    return loose


def last_base(dockerfile: str) -> str:
    """The base image of the last stage, also through other stages; empty without a stage."""
    bases: dict[str, str] = {}
    last = ""
    for base, stage in _stages(dockerfile):
        last = bases.get(base, base)
        bases[stage] = last
    return last


def _stages(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Base and name of each stage; an unnamed stage has no name."""
    for line in dockerfile.splitlines():
        words = [word for word in line.split() if not word.startswith("--")]
        if len(words) > 1 and words[0].upper() == "FROM":
            named = len(words) > 3 and words[2].upper() == "AS"
            yield words[1], words[3] if named else ""
