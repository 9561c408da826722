"""The declared stack: its images, and the Compose project that runs them."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmhost.docker.build_context import context_files
from llmhost.docker.compose import Limits, Project
from llmhost.docker.image import ModelImage, ServiceImage, WeightsFile
from llmhost.gateway.models import other_names
from llmhost.models.files import sha256_of
from llmhost.nvidia.gpu_allocation import Devices
from llmhost.options.model import Model
from llmhost.options.model_source import at_mirror
from llmhost.resources import FILES
from llmhost.secret import read_secret
from llmhost.services.app import LINKS, App, loads_onnx
from llmhost.services.base import GATEWAY, AnyService, ServiceOptions
from llmhost.services.vllm import SERVICE as VLLM
from llmhost.services.vllm import VllmOptions
from llmhost.settings import Settings
from llmhost.stack.engine_group import Member, member_of, with_ray
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
            models=_weights_of(settings, service),
            context=tuple(_context(settings, service)),
            **_app_build(settings, service),
        )
        for service in settings.catalogue
    )


def _app_build(settings: Settings, service: AnyService) -> dict[str, Any]:
    options = settings.options(service.name)
    if not isinstance(options, App):
        return {}
    needs_glibc = loads_onnx(settings.models_of(service.name))
    return {"build_args": options.build_args, "needs_glibc": needs_glibc}


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
        each.name: limits(
            settings.options(each.name).memory_limit,
            capacity or Capacity(),
            hardened=hardened,
            in_group=each.name in settings.group_services,
        )
        for each in settings.catalogue
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
        private=frozenset(
            each.name
            for each in settings.catalogue
            if settings.options(each.name).secret_variables or each.name in settings.group_services
        ),
        limits=limited,
        questions={
            service.name: program
            for service in settings.catalogue
            if (program := service.changed_settings(settings.options(service.name)))
        },
    )


def _service_file(
    settings: Settings, service: AnyService, image: str, devices: Devices, limited: Limits
) -> str:
    """The Compose file of a service."""
    options, models = settings.options(service.name), settings.models_of(service.name)
    gpus, names = devices.get(service.name, ()), other_names(settings, service.name)
    member = member_of(settings, service, image)
    return render(
        _template(options, service.name),
        project=settings.stack.project,
        service=service,
        image=image,
        options=options,
        devices=gpus,
        needs=started_first(settings, service, devices),
        environment=_environment(settings, service, member),
        member=member,
        cache_key=_cache_key(settings, service, image, gpus),
        models=models,
        arguments=_arguments(settings, service),
        other_names=names,
        renamed=tuple(
            model.model_copy(update={"name": name})
            for model in models
            for name in names.get(model.name, ())
        ),
        limits=limited,
        docker_size=docker_size,
        docker=settings.docker,
        stack=settings.stack,
        monitored=bool(settings.monitoring.enabled),
        hosts=_hosts(settings, service),
        gateway=settings.gateway,
        gateway_name=GATEWAY,
        quoted=_quoted,
    )


def _arguments(settings: Settings, service: AnyService) -> tuple[str, ...]:
    options, models = settings.options(service.name), settings.models_of(service.name)
    if settings.member and isinstance(options, VllmOptions):
        return tuple(VLLM.group_arguments(settings.engine_group, options, models))
    return tuple(service.arguments(options, models))


def _hosts(settings: Settings, service: AnyService) -> tuple[tuple[str, str], ...]:
    """Names that the container knows besides those of services, and their addresses."""
    found = settings.stack.egress_names if settings.stack.egress == "deny" else ()
    if not service.calls_gateway:
        return found
    addresses = settings.gateway.addresses
    every = any(each.is_unspecified for each in addresses)
    return (*found, (GATEWAY, "host-gateway" if every else str(addresses[0])))


_NOT_COMPILED = {"port", "timezone", "memory_limit", "shared_memory", "load_timeout_seconds"}
"""Options that change nothing of what an engine compiles."""


def _cache_key(settings: Settings, service: AnyService, image: str, gpus: Sequence[str]) -> str:
    """Name of a cache of compiled code, which depends on the image, the GPUs and the options."""
    options = settings.options(service.name).model_dump_json(exclude=_NOT_COMPILED)
    models = [model.model_dump_json() for model in settings.models_of(service.name)]
    text = json.dumps([image, [*gpus], options, models])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _template(options: ServiceOptions, service: str) -> str:
    return "stack/app.yaml.j2" if isinstance(options, App) else f"services/{service}.yaml.j2"


def _quoted(text: str) -> str:
    """Text as a YAML string without variables for Compose."""
    return json.dumps(text.replace("$", "$$"))


def _weights_of(settings: Settings, service: AnyService) -> tuple[ModelImage, ...]:
    models = settings.models_of(service.name)
    return weights_images(models, settings, service.holders(models))


def weights_images(
    models: Sequence[Model], settings: Settings, holders: Sequence[Model] | None = None
) -> tuple[ModelImage, ...]:
    """Images of the weights of models, or of those that hold the weights of all, and of what is
    loaded beside them; hubs and the model store are those of the host."""
    store = settings.model_store if settings.model_store.location else None
    held = models if holders is None else holders
    found = (*(_weights(model, settings.stack.hubs) for model in held), *_adapters(models))
    return tuple(
        replace(image, files=tuple(replace(file, store=store) for file in image.files))
        for image in found
    )


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
        for option, place in model.beside.items():
            file = WeightsFile(sha256_of(Path(place)), place, False, model.beside_path(option))
            yield ModelImage(f"{model.name}-{option}", (file,))
        for adapter in model.adapters:
            files = [
                WeightsFile(sha256_of(Path(source)), source, False, path)
                for path, source in adapter.places(model.name).items()
            ]
            yield ModelImage(f"{model.name}-adapter-{adapter.name}", tuple(files))


def _context(settings: Settings, service: AnyService) -> Sequence[File]:
    options = settings.options(service.name)
    models = settings.models_of(service.name)
    if isinstance(options, App):
        files = context_files(options.context) if options.context else (_AS_IT_IS,)
        files = tuple(_with_models(file, settings, models) for file in files)
        # Its rules have been applied; the builder would apply them to the links, too.
        files = tuple(each for each in files if not (models and each.path == ".dockerignore"))
    else:
        files = context_files(FILES / "images" / service.name)
        if service.name in settings.group_services:
            files = with_ray(files, settings.engine_group.package_index)
    own = tuple(service.context(options, models))
    renamed = service.renamed(own, other_names(settings, service.name))
    return tuple({file.path: file for file in (*files, *own, *renamed)}.values())


def _with_models(file: File, settings: Settings, models: Sequence[Model]) -> File:
    """An app's Dockerfile that also copies its models, as layers that do not depend on the others,
    and the links to them."""
    if not models or file.path != "Dockerfile":
        return file
    lines = [
        f"COPY --link --from={image.reference} / /" for image in weights_images(models, settings)
    ]
    return replace(file, content="\n".join([file.data.decode(), *lines, f"ADD {LINKS} /", ""]))


def _environment(settings: Settings, service: AnyService, member: Member | None) -> dict[str, str]:
    """Declared variables and secrets. Not by `env_file`: with it, Compose prints another hash
    before it creates a container than it stores in the container (seen with 2.26)."""
    options = settings.options(service.name)
    models = settings.models_of(service.name)
    given = options.variables(models) if isinstance(options, App) else options.environment
    places = options.secret_variables.items()
    secrets = {variable: read_secret(place) for variable, place in places}
    return {**given, **secrets, **(member.environment if member else {})}
