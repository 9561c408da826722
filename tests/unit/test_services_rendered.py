"""Every service of the catalogue, rendered with each kind of option and model: Docker Compose
accepts it, and it is confined as every container has to be."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from llmhost.docs.reference import reference
from llmhost.gateway.routes import clashes, exposed_routes
from llmhost.inventory.environment_rules import reserved
from llmhost.inventory.reader import read_settings
from llmhost.nvidia.gpu_allocation import KIND
from llmhost.resources import FILES, TEMPLATES
from llmhost.services import catalogue
from llmhost.settings import Settings
from llmhost.stack.project import compose_project, service_images
from tests.unit.service_sites import sites

Document = dict[str, Any]

_FORBIDDEN = {"privileged", "network_mode", "pid", "ipc", "cap_add", "devices", "env_file", "build"}


def faults(name: str, text: str) -> Iterator[str]:
    """What is wrong with the Compose file of a service."""
    try:
        # Docker's word for the host's address (moby, opts/hosts.go), which the crate does not know.
        PyCompose.from_yaml(text.replace(":host-gateway", "=192.0.2.1"))
    except ValueError as error:
        yield f"the Compose specification: {error}"
    document: Document = yaml.safe_load(text)
    if list(document["services"]) != [name]:
        yield "not exactly this service"
    service = document["services"][name]
    if forbidden := _FORBIDDEN & service.keys():
        yield f"has {forbidden}"
    if not re.fullmatch(rf"llmhost/{name}:[0-9a-f]{{16}}", service["image"]):
        yield f"image {service['image']} is not named by its inputs"
    if service.get("pull_policy") != "never":
        yield "is pulled"
    if not all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in service.get("ports", ())):
        yield "publishes a port beyond the loopback"
    if service.get("restart") != "unless-stopped":
        yield "is not restarted"
    yield from _confinement_faults(service)
    yield from _health_faults(service.get("healthcheck", {}))
    yield from _text_faults(service)
    yield from _volume_faults(service, document.get("volumes") or {})


def _confinement_faults(service: Document) -> Iterator[str]:
    if service.get("cap_drop") != ["ALL"]:
        yield "keeps capabilities"
    if "no-new-privileges:true" not in service.get("security_opt", ()):
        yield "may gain privileges"
    if not service.get("read_only") or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]):
        yield "runs as root or may write to its image"
    if not service.get("pids_limit") or "max-size" not in service["logging"]["options"]:
        yield "has no limit of processes or of its log"


def _health_faults(check: Document) -> Iterator[str]:
    if {"test", "interval", "timeout", "retries", "start_period"} - check.keys():
        yield "has no whole health check"
    elif check["test"][0] not in ("CMD", "CMD-SHELL") or len(check["test"]) < 2:
        yield "has a health check that asks nothing"


def _text_faults(service: Document) -> Iterator[str]:
    """Compose would turn numbers and booleans into texts of its own."""
    for variable, value in service.get("environment", {}).items():
        if not re.fullmatch(r"[A-Za-z_]\w*", str(variable)) or not isinstance(value, str):
            yield f"the variable {variable} is {value!r}"
    for word in (*service.get("command", ()), *service.get("healthcheck", {}).get("test", ())):
        if not isinstance(word, str):
            yield f"the word {word!r} is no text"


def _volume_faults(service: Document, declared: Document) -> Iterator[str]:
    mounts = service.get("volumes", ())
    if any(mount["type"] not in ("volume", "tmpfs") for mount in mounts):
        yield "mounts a directory of the host"
    if {mount["source"] for mount in mounts if mount["type"] == "volume"} != {*declared}:
        yield "volumes are not those that are declared"


def rendered(settings: Settings, name: str) -> str:
    """Its Compose file on a host that has every GPU that it asks for."""
    request = settings.gpu_requests.get(name)
    devices = tuple(f"{KIND}=GPU-{number}" for number in range(request.count if request else 0))
    return compose_project(settings, {name: devices}).services[name]


@pytest.fixture(scope="module")
def every_site(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, Settings]]:
    found = sites(tmp_path_factory.mktemp("sites"))
    return [(name, what, read_settings(data, rules=lambda _: ())) for name, what, data in found]


@pytest.mark.parametrize("name", catalogue())
def test_service_renders_into_a_confined_container(
    every_site: list[tuple[str, str, Settings]], name: str
) -> None:
    found = {
        what: list(faults(name, rendered(settings, name)))
        for service, what, settings in every_site
        if service == name
    }
    assert len(found) >= 7
    assert {what: told for what, told in found.items() if told} == {}


@pytest.mark.parametrize("name", catalogue())
def test_service_is_given_its_gpus_and_its_engine_s_digest(
    every_site: list[tuple[str, str, Settings]], name: str
) -> None:
    for service, what, settings in every_site:
        if service == name:
            document = yaml.safe_load(rendered(settings, name))["services"][name]
            request = settings.gpu_requests.get(name)
            reserved = document.get("deploy", {"resources": {"reservations": {"devices": []}}})
            ids = [
                device
                for each in reserved["resources"]["reservations"]["devices"]
                for device in each["device_ids"]
            ]
            assert len(ids) == (request.count if request else 0), what
            images = {image.service: image for image in service_images(settings)}
            assert re.search(r":[^:/@]+@sha256:[0-9a-f]{64}$", images[name].engine), what


@pytest.mark.parametrize("name", catalogue())
def test_declared_variables_reach_the_container_and_no_other_is_free(
    every_site: list[tuple[str, str, Settings]], name: str
) -> None:
    for service, what, settings in every_site:
        if service == name:
            document = yaml.safe_load(rendered(settings, name))["services"][name]
            variables = document.get("environment", {})
            declared = settings.options(name).environment
            assert {each: variables[each].replace("$$", "$") for each in declared} == declared, what
            rest = {*variables} - {*declared}
            free = rest - reserved(catalogue()[name])
            assert {each for each in free if not each.startswith("LLMHOST_")} == set(), what


@pytest.mark.parametrize("name", catalogue())
def test_service_has_its_files_and_routes_that_clash_with_none(
    every_site: list[tuple[str, str, Settings]], name: str
) -> None:
    assert (TEMPLATES / f"services/{name}.yaml.j2").is_file()
    dockerfile = (FILES / f"images/{name}/Dockerfile").read_text()
    instructions = [line for line in dockerfile.splitlines() if line and not line.startswith("#")]
    assert instructions[0] in ("FROM base", "FROM engine")
    service = catalogue()[name]
    for _, what, settings in (site for site in every_site if site[0] == name):
        assert list(clashes(exposed_routes(settings))) == [], what
        routes = {(route.path, each) for route in service.routes for each in route.methods}
        for request in service.requests(settings.models_of(name)) if routes else ():
            method = "GET" if request.body is None else "POST"
            assert (request.path, method) in routes, what


@pytest.mark.parametrize("name", catalogue())
def test_every_option_of_a_service_is_documented(name: str) -> None:
    rows = {
        cells[1].strip(" `"): cells[-2].strip()
        for line in reference().splitlines()
        if (cells := line.split("|")) and len(cells) > 5
    }
    options = catalogue()[name].options.model_fields
    documented = {
        each: rows.get(f"{name}_{each}") or rows.get(f"SERVICE_{each}") for each in options
    }
    assert [option for option, text in documented.items() if not text] == []


def _without(key: str) -> Callable[[Document], object]:
    return lambda service: service.pop(key)


def _with(**changes: Any) -> Callable[[Document], object]:
    return lambda service: service.update(changes)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_with(restrat="always"), "the Compose specification"),
        (_with(mem_limit="3 potatoes"), "the Compose specification"),
        (_with(ports=["8000:8000"]), "publishes a port"),
        (_with(ports=["0.0.0.0:8000:8000"]), "publishes a port"),
        (_with(image="redis:latest"), "not named by its inputs"),
        (_with(pull_policy="always"), "is pulled"),
        (_with(privileged=True), "has {'privileged'}"),
        (_with(user="0:0"), "runs as root"),
        (_with(cap_drop=["NET_RAW"]), "keeps capabilities"),
        (_with(security_opt=[]), "may gain privileges"),
        (_without("healthcheck"), "has no whole health check"),
        (_without("restart"), "is not restarted"),
        (_with(environment={"PORT": 80}), "the variable PORT is 80"),
        (_with(command=["--port", 80]), "the word 80 is no text"),
        (_with(volumes=[{"type": "bind", "source": "/", "target": "/x"}]), "mounts a directory"),
        (_with(volumes=[{"type": "volume", "source": "x", "target": "/x"}]), "volumes are not"),
    ],
)
def test_fault_in_a_compose_file_is_found(
    tmp_path: Path, spoil: Callable[[Document], object], told: str
) -> None:
    (data,) = (
        data for name, what, data in sites(tmp_path) if (name, what) == ("redis", "defaults")
    )
    document = yaml.safe_load(rendered(read_settings(data), "redis"))
    assert list(faults("redis", yaml.safe_dump(document))) == []
    spoil(document["services"]["redis"])
    assert any(told in each for each in faults("redis", yaml.safe_dump(document)))
