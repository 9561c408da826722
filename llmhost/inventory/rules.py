"""Rules between options of different sections."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from llmhost.inventory.app_rules import app_problems
from llmhost.inventory.backup_rules import backup_problems
from llmhost.inventory.egress_rules import egress_problems
from llmhost.inventory.engine_group_rules import engine_group_problems
from llmhost.inventory.environment_rules import environment_problems
from llmhost.inventory.gateway_rules import gateway_problems
from llmhost.inventory.gpu_rules import gpu_problems
from llmhost.inventory.model_route_rules import model_route_problems
from llmhost.inventory.model_rules import model_problems
from llmhost.inventory.model_store_rules import model_store_problems
from llmhost.inventory.monitoring_rules import monitoring_problems
from llmhost.inventory.problem import Problem
from llmhost.inventory.secret_rules import secret_problems
from llmhost.inventory.training_rules import training_problems
from llmhost.inventory.upstream_rules import upstream_problems
from llmhost.inventory.vllm_rules import vllm_problems
from llmhost.options.model import Model
from llmhost.options.networks import overlap
from llmhost.settings import Settings


def broken_rules(settings: Settings) -> Iterator[Problem]:
    """All mistakes that involve several options."""
    yield from _repeated_names(settings)
    yield from _clashing_ports(settings)
    yield from _misplaced_models(settings)
    yield from _missing_services(settings)
    yield from app_problems(settings)
    yield from secret_problems(settings)
    yield from backup_problems(settings)
    yield from model_store_problems(settings)
    yield from environment_problems(settings)
    yield from _placeholders(settings)
    yield from gpu_problems(settings)
    yield from engine_group_problems(settings)
    yield from vllm_problems(settings)
    yield from _containers_in_the_lan(settings)
    yield from model_problems(settings)
    yield from training_problems(settings)
    yield from gateway_problems(settings)
    yield from upstream_problems(settings)
    yield from model_route_problems(settings)
    yield from egress_problems(settings)
    yield from monitoring_problems(settings)
    if (settings.offered or settings.services) and not settings.api_clients:
        yield Problem(
            "api_clients",
            "is empty, so no client may call the gateway",
            "create a key with: llmhost key new NAME, and add the line that it prints",
        )


def _placeholders(settings: Settings) -> Iterator[Problem]:
    """Zeros of the sample inventory instead of the site's own pins."""
    for model in settings.models:
        pins = [model.revision, *model.baked.values()]
        if any(pin and not int(pin, 16) for pin in pins):
            yield Problem(
                "models",
                f"'{model.name}' still has the zeros of the sample inventory",
                "write the commit of the repository and the SHA-256 of the file",
            )
    for client in settings.api_clients:
        if not int(client.sha256, 16):
            yield Problem(
                "api_clients",
                f"'{client.name}' still has the zeros of the sample inventory",
                "create a key with: llmhost key new NAME, and write its digest",
            )


def _repeated_names(settings: Settings) -> Iterator[Problem]:
    named = {
        "services": settings.services,
        "models": (
            *_names_of_models(settings),
            *(adapter.name for model in settings.models for adapter in model.adapters),
        ),
        "apps": tuple(app.name for app in settings.apps),
        "api_clients": tuple(client.name for client in settings.api_clients),
        "training_jobs": tuple(job.name for job in settings.training_jobs),
    }
    for key, names in named.items():
        for name, count in Counter(names).items():
            if count > 1:
                yield Problem(
                    key, f"'{name}' is declared {count} times", _FIXES.get(key, "keep one")
                )


_FIXES = {"models": "keep one; if several services run it, declare gateway_shares"}


def _names_of_models(settings: Settings) -> Iterator[str]:
    """Each name once for several services that share its requests."""
    shared = {
        (model.name, model.service)
        for model in settings.models
        if model.name in settings.gateway.shares
    }
    yield from dict.fromkeys(name for name, _ in shared)
    counts = Counter((model.name, model.service) for model in settings.models)
    for pair, count in counts.items():
        yield from [pair[0]] * (count - (pair in shared))


def _clashing_ports(settings: Settings) -> Iterator[Problem]:
    ports = {"firewall_ssh_port": settings.firewall.ssh_port, "gateway_port": settings.gateway.port}
    ports["gateway_status_port"] = settings.gateway.status_port
    if settings.gateway.metrics_port:
        ports["gateway_metrics_port"] = settings.gateway.metrics_port
    if settings.member:
        ports["engine_group_port"] = settings.engine_group.port
    if settings.monitoring.enabled:
        ports["monitoring_node_port"] = settings.monitoring.node_port
    if settings.monitoring.server:
        ports["monitoring_prometheus_port"] = settings.monitoring.prometheus_port
        ports["monitoring_alertmanager_port"] = settings.monitoring.alertmanager_port
    places = {app.name: f"apps[{index}].port" for index, app in enumerate(settings.apps)}
    services = settings.service_options.items()
    ports |= {places.get(name, f"{name}_port"): each.port for name, each in services if each.port}
    ports |= {f"{name}_ui_port": ui.ui_port for name, ui in settings.uis.items()}
    ports |= {
        f"firewall_rules[{i}]": r.port
        for i, r in enumerate(settings.firewall.rules)
        if r.protocol == "tcp"
    }
    for port in sorted(set(ports.values())):
        keys = [key for key in ports if ports[key] == port]
        if len(keys) > 1:
            clash = f"{' and '.join(keys)} are both {port}"
            yield Problem(keys[0], clash, "give each its own port")


def _containers_in_the_lan(settings: Settings) -> Iterator[Problem]:
    pool = settings.docker.address_pool
    for address in settings.network.addresses:
        if overlap(address.network, pool):
            what = f"overlaps {address.network}, the host's own network in network_addresses"
            yield Problem(
                "docker_address_pool",
                what,
                "write a private range that your network does not use",
            )


def _missing_services(settings: Settings) -> Iterator[Problem]:
    for service in settings.catalogue:
        for needed in settings.options(service.name).needed_services:
            if needed not in settings.services:
                yield Problem(
                    "services",
                    f"'{service.name}' needs '{needed}', which is not declared",
                    f"add '{needed}', or set the URL of an existing one (llmhost docs options)",
                )


def _misplaced_models(settings: Settings) -> Iterator[Problem]:
    for model in settings.models:
        if model.service not in settings.services:
            yield Problem(
                "models",
                f"'{model.name}' is for the service '{model.service}', which is not declared",
                f"add '{model.service}' to services, or change the model's service",
            )
        if model.kind == "file":
            yield from _missing_files(model)
    for service in settings.catalogue:
        models = settings.models_of(service.name)
        unfit = service.check_options(settings.options(service.name), models)
        for sentence in (*service.problems(models), *unfit):
            yield Problem("models", f"service '{service.name}' {sentence}")


def _missing_files(model: Model) -> Iterator[Problem]:
    missing = [Path(place) for place in model.places.values() if not Path(place).is_file()]
    if missing:
        yield Problem(
            "models",
            f"'{model.name}': its source does not exist on the controller"
            + (f", file {missing[0].name}" if model.files else ""),
            "write a path relative to the working directory of pyinfra",
        )
