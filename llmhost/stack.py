"""The stack that settings ask for: the images it needs, and the Compose project that runs them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmhost.compose import Project
from llmhost.filetree import File
from llmhost.image import ModelImage, ServiceImage, Weights
from llmhost.model_files import sha256_of
from llmhost.services import catalogue
from llmhost.settings.model import Model
from llmhost.settings.root import Settings
from llmhost.template import ROOT, render


def service_images(settings: Settings) -> tuple[ServiceImage, ...]:
    """The image of each declared service, with its models and its build context."""
    return tuple(
        ServiceImage(
            service=name,
            engine=settings.options(name).image,
            models=(*map(_weights, settings.models_of(name)), *_adapters(settings.models_of(name))),
            context=(
                *_build_context(ROOT / "files" / "images" / name),
                *catalogue()[name].context(settings.options(name), settings.models_of(name)),
            ),
        )
        for name in settings.services
    )


def started_first(settings: Settings, service: str) -> tuple[str, ...]:
    """Services that must be healthy before this one starts.

    Services that share a GPU start one after another: each measures how much memory is free while
    it starts, and vLLM ends if that is less than its fraction.
    """
    gpu = settings.options(service).gpu
    others = [name for name in settings.services if settings.options(name).gpu == gpu]
    earlier = others[: others.index(service)]
    return () if gpu is None else tuple(earlier[-1:])


def compose_project(settings: Settings) -> Project:
    """The Compose project of the declared services."""
    images = {image.service: image.reference for image in service_images(settings)}
    return Project(
        name=settings.stack.project,
        directory=settings.stack.directory,
        root=render(
            "stack/compose.yaml.j2",
            project=settings.stack.project,
            services=settings.services,
            quoted=_quoted,
        ),
        services={
            service.name: render(
                f"services/{service.name}.yaml.j2",
                project=settings.stack.project,
                service=service,
                image=images[service.name],
                options=settings.options(service.name),
                models=settings.models_of(service.name),
                arguments=tuple(service.arguments(settings.models_of(service.name))),
                needs=started_first(settings, service.name),
                docker=settings.docker,
                quoted=_quoted,
            )
            for service in settings.catalogue
        },
        images=images,
        start_timeout_seconds=settings.stack.start_timeout_seconds,
    )


def _quoted(text: str) -> str:
    """Text as a YAML string, in which Compose finds no variable to replace."""
    return json.dumps(text.replace("$", "$$"))


def _weights(model: Model) -> ModelImage:
    remote = model.kind == "url"
    places = model.places
    files = (Weights(sha256, places[path], remote, path) for path, sha256 in model.baked.items())
    return ModelImage(model.name, tuple(files))


def _adapters(models: Sequence[Model]) -> Iterator[ModelImage]:
    """Adapters are images of their own: another adapter moves no other weights."""
    for model in models:
        if model.adapter:
            sha256 = sha256_of(Path(model.adapter))
            file = Weights(sha256, model.adapter, False, model.adapter_path)
            yield ModelImage(f"{model.name}-adapter", (file,))


def _build_context(directory: Path) -> tuple[File, ...]:
    """Files below a directory by relative path; only whether one is executable is kept of modes,
    for a checkout's modes depend on its owner's umask."""
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return tuple(
        File(
            path=str(path.relative_to(directory)),
            content=path.read_bytes(),
            mode="0755" if path.stat().st_mode & 0o100 else "0644",
        )
        for path in paths
    )
