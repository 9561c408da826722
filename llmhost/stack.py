"""The stack that settings ask for: the images it needs, and the Compose project that runs them."""

import json
from pathlib import Path

from llmhost.compose import Project
from llmhost.filetree import File
from llmhost.image import ModelImage, ServiceImage
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
            models=tuple(_model_image(model) for model in settings.models_of(name)),
            context=(
                *_build_context(ROOT / "files" / "images" / name),
                *catalogue()[name].context(settings.options(name), settings.models_of(name)),
            ),
        )
        for name in settings.services
    )


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
                needs=service.needs(settings.options(service.name)),
                models=settings.models_of(service.name),
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


def _model_image(model: Model) -> ModelImage:
    remote = model.kind == "url"
    source = model.url if remote else model.source
    return ModelImage(model.name, model.sha256, source, remote, model.path)


def _build_context(directory: Path) -> tuple[File, ...]:
    """Files below a directory by relative path; only whether one is executable is kept of modes,
    for a checkout's modes depend on its owner's umask."""
    paths = (
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    )
    return tuple(
        File(
            path=str(path.relative_to(directory)),
            content=path.read_bytes(),
            mode="0755" if path.stat().st_mode & 0o100 else "0644",
        )
        for path in paths
    )
