"""Mistakes in `apps` that involve other options or files on the controller."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path, PurePosixPath

from llmhost.docker.build_context import context_files, last_base, unpinned_bases
from llmhost.inventory.problem import Problem
from llmhost.models.hub_cache import CACHE, repository, revision
from llmhost.options.model import MODELS, Model
from llmhost.secret import read_secret
from llmhost.services import catalogue
from llmhost.services.app import App, loads_onnx
from llmhost.settings import Settings
from llmhost.units import MIB, gib

MOST_CONTEXT_MIB = 64


def app_problems(settings: Settings) -> Iterator[Problem]:
    """Every mistake of every app."""
    for index, app in enumerate(settings.apps):
        key = f"apps[{index}]"
        if app.name in catalogue():
            yield Problem(
                f"{key}.name", f"'{app.name}' is the name of a service", "choose another name"
            )
        if app.context:
            yield from _unfit_context(f"{key}.context", app.name, app.context)
        yield from _unreadable_secrets(key, app)
        yield from _unfit_for_models(key, app, settings.models_of(app.name))
        yield from _repeated_directories(key, app)
        if _needs_itself(app, settings):
            yield Problem(f"{key}.needs", f"'{app.name}' would wait for itself", "remove the cycle")


def _unfit_context(key: str, name: str, directory: Path) -> Iterator[Problem]:
    dockerfile = directory / "Dockerfile"
    if not directory.is_dir():
        yield Problem(
            key,
            f"'{name}' has no build context: the directory does not exist on the controller",
            "write a path relative to the working directory of pyinfra",
        )
    elif not dockerfile.is_file():
        yield Problem(key, f"the build context of '{name}' has no Dockerfile", "add one")
    else:
        for base in unpinned_bases(dockerfile.read_text()):
            fix = f"write {base}@sha256:… with the digest that `docker pull` prints"
            yield Problem(key, f"the Dockerfile of '{name}' has a base image without a digest", fix)
        size = sum(len(file.data) for file in context_files(directory))
        if size > MOST_CONTEXT_MIB * MIB:
            yield Problem(
                key,
                f"the context of '{name}' has {gib(size)}; the limit is {MOST_CONTEXT_MIB} MiB",
                "list files that the build does not need in a .dockerignore",
            )


def _unfit_for_models(key: str, app: App, models: Sequence[Model]) -> Iterator[Problem]:
    if not models:
        return
    mounted = (*app.volumes.values(), *app.writable)
    for directory, baked in product(mounted, (MODELS, CACHE)):
        if is_below(directory, baked) or is_below(baked, directory):
            what = f"{directory} of '{app.name}' would hide or replace the models in {baked}"
            yield Problem(f"{key}.volumes", what, "mount another directory")
    for name, of_revision in _revisions(models).items():
        if len(of_revision) > 1:
            what = f"'{app.name}' has {name} in {len(of_revision)} revisions"
            yield Problem("models", what, "use one: libraries ask for a repository by its name")
    if loads_onnx(models):
        yield from _musl(key, app)


def is_below(path: str, directory: str) -> bool:
    """Whether a path is a directory or below it."""
    return PurePosixPath(path).is_relative_to(directory)


def _revisions(models: Sequence[Model]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for model in models:
        if name := repository(model):
            found.setdefault(name, set()).add(revision(model))
    return found


def _musl(key: str, app: App) -> Iterator[Problem]:
    """Bases that are called so; a build looks into the image itself."""
    dockerfile = app.context / "Dockerfile" if app.context else None
    base = app.image
    if dockerfile and dockerfile.is_file():
        base = last_base(dockerfile.read_text())
    if re.search(r"alpine|musl", base):
        what = (
            f"'{app.name}' has ONNX models and the base image {base.partition('@')[0]}, with musl"
        )
        fix = "use a Debian base image: ONNX Runtime needs glibc"
        yield Problem(f"{key}.{'context' if app.context else 'image'}", what, fix)


def _unreadable_secrets(key: str, app: App) -> Iterator[Problem]:
    for variable, reference in app.secrets.items():
        place = f"{key}.secrets.{variable}"
        try:
            read_secret(reference)
        except ValueError as error:
            yield Problem(place, str(error))


def _repeated_directories(key: str, app: App) -> Iterator[Problem]:
    mounted = Counter(["/tmp", *app.volumes.values(), *app.writable])  # noqa: S108
    for directory, times in mounted.items():
        if times > 1:
            what = f"{directory} of '{app.name}' is mounted {times} times"
            yield Problem(f"{key}.volumes", what, "keep one")


def _needs_itself(app: App, settings: Settings) -> bool:
    """Whether an app waits for itself, directly or indirectly."""
    waiting, known = [app.name], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in settings.services:
            continue
        needed = set(settings.options(name).needed_services)
        if app.name in needed:
            return True
        waiting += needed - known
        known |= needed
    return False
