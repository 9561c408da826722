"""The declared stack: its images, and the Compose project that runs them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from llmhost.docker.build_context import context_files
from llmhost.docker.compose import Limits, Project
from llmhost.docker.image import ModelImage, ServiceImage, WeightsFile
from llmhost.models.files import sha256_of
from llmhost.nvidia.gpu_allocation import Devices
from llmhost.options.model import Model
from llmhost.options.model_source import at_mirror
from llmhost.resources import FILES
from llmhost.secret import read_secret
from llmhost.services.app import App
from llmhost.services.base import AnyService, ServiceOptions
from llmhost.settings import Settings
from llmhost.stack.limits import Capacity, limits
from llmhost.system.files import File
from llmhost.template import render
from llmhost.units import docker_size

_AS_IT_IS = File("Dockerfile", "FROM engine\n")
"""Dockerfile for a site's own image: the built image has the inputs label and is available
offline."""


def service_images(settings: Settings) -> tuple[ServiceImage, ...]:
    """The image of each declared service, with its models and its build context."""
    return tuple(
        ServiceImage(
            service=service.name,
            engine=settings.options(service.name).image,
            models=_images_of(settings.models_of(service.name), settings.stack.hubs),
            context=tuple(_context(settings, service)),
        )
        for service in settings.catalogue
    )


def started_first(settings: Settings, service: AnyService, devices: Devices) -> tuple[str, ...]:
    """Services that must be healthy before this one starts: those that it needs, and the previous
    one on each of its GPUs.

    Services that share a GPU start one after another: each measures the free memory at its start,
    and vLLM exits if that is less than its fraction.
    """
    earlier = settings.services[: settings.services.index(service.name)]
    sharers = {
        device: name
        for name in earlier
        for device in devices.get(name, ())
        if device in devices.get(service.name, ())
    }
    needed = settings.options(service.name).needed_services
    return tuple(dict.fromkeys((*needed, *sharers.values())))


def compose_project(
    settings: Settings, devices: Devices | None = None, capacity: Capacity | None = None
) -> Project:
    """The Compose project of the declared services, with their GPUs and their limits on a host."""
    images = {image.service: image.reference for image in service_images(settings)}
    hardened = settings.system.hardening != "off"
    limited = {
        name: limits(settings.options(name).memory_limit, capacity or Capacity(), hardened=hardened)
        for name in settings.services
    }
    return Project(
        name=settings.stack.project,
        directory=settings.stack.directory,
        root=render(
            "stack/compose.yaml.j2",
            project=settings.stack.project,
            services=settings.services,
            bridge=settings.stack.bridge,
            quoted=_quoted,
        ),
        services={
            service.name: _service_file(
                settings, service, images[service.name], devices or {}, limited[service.name]
            )
            for service in settings.catalogue
        },
        images=images,
        start_timeout_seconds=settings.stack.start_timeout_seconds,
        bridge=settings.stack.bridge,
        private=frozenset(n for n in settings.services if settings.options(n).secret_variables),
        limits=limited,
        questions={
            service.name: program
            for service in settings.catalogue
            if (program := service.changed_settings(settings.options(service.name)))
        },
    )


def _service_file(
    settings: Settings, service: AnyService, image: str, devices: Devices, limits: Limits
) -> str:
    """The Compose file of a service."""
    options, models = settings.options(service.name), settings.models_of(service.name)
    return render(
        _template(options, service.name),
        project=settings.stack.project,
        service=service,
        image=image,
        options=options,
        devices=devices.get(service.name, ()),
        needs=started_first(settings, service, devices),
        environment=_environment(options),
        models=models,
        arguments=tuple(service.arguments(options, models)),
        limits=limits,
        docker_size=docker_size,
        docker=settings.docker,
        stack=settings.stack,
        quoted=_quoted,
    )


def _template(options: ServiceOptions, service: str) -> str:
    return "stack/app.yaml.j2" if isinstance(options, App) else f"services/{service}.yaml.j2"


def _quoted(text: str) -> str:
    """Text as a YAML string without variables for Compose."""
    return json.dumps(text.replace("$", "$$"))


def _images_of(models: Sequence[Model], hubs: Mapping[str, str]) -> tuple[ModelImage, ...]:
    return (*(_weights(model, hubs) for model in models), *_adapters(models))


def _weights(model: Model, hubs: Mapping[str, str]) -> ModelImage:
    remote = model.kind == "url"
    mirrors = {} if isinstance(model.origin, str) else hubs
    places = {path: at_mirror(place, mirrors) for path, place in model.places.items()}
    token = model.token or ""
    return ModelImage(
        model.name,
        tuple(
            WeightsFile(sha, places[path], remote, path, token) for path, sha in model.baked.items()
        ),
    )


def _adapters(models: Sequence[Model]) -> Iterator[ModelImage]:
    """Adapters are separate images: a new adapter does not move other weights."""
    for model in models:
        if model.adapter:
            sha256 = sha256_of(Path(model.adapter))
            file = WeightsFile(sha256, model.adapter, False, model.adapter_path)
            yield ModelImage(f"{model.name}-adapter", (file,))
        for adapter in model.adapters:
            files = [
                WeightsFile(sha256_of(Path(source)), source, False, path)
                for path, source in adapter.places(model.name).items()
            ]
            yield ModelImage(f"{model.name}-adapter-{adapter.name}", tuple(files))


def _context(settings: Settings, service: AnyService) -> Sequence[File]:
    options = settings.options(service.name)
    if isinstance(options, App):
        return context_files(options.context) if options.context else (_AS_IT_IS,)
    return (
        *context_files(FILES / "images" / service.name),
        *service.context(options, settings.models_of(service.name)),
    )


def _environment(options: ServiceOptions) -> dict[str, str]:
    """Declared variables and secrets. Not by `env_file`: with it, Compose prints another hash
    before it creates a container than it stores in the container (seen with 2.26)."""
    places = options.secret_variables.items()
    return {**options.environment, **{variable: read_secret(place) for variable, place in places}}
