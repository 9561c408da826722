"""The settings of a host: all sections of options."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from pydantic import Field, SerializeAsAny

from llmhost.nvidia.gpu_allocation import GpuRequest
from llmhost.options.announce import Announce
from llmhost.options.app_server import AppServer
from llmhost.options.backup import Backup
from llmhost.options.base import Section
from llmhost.options.container_toolkit import ContainerToolkit
from llmhost.options.docker import Docker
from llmhost.options.engine_group import EngineGroup
from llmhost.options.firewall import Firewall
from llmhost.options.gateway import ApiClient, Gateway
from llmhost.options.healing import Healing
from llmhost.options.model import Model
from llmhost.options.model_store import ModelStore
from llmhost.options.monitoring import Monitoring
from llmhost.options.network import HostNetwork
from llmhost.options.networks import IpNetwork, with_network, within
from llmhost.options.nvidia_driver import NvidiaDriver
from llmhost.options.policy import ModelPolicy
from llmhost.options.preflight import Preflight
from llmhost.options.receipt import Receipt
from llmhost.options.stack import Destination, Stack
from llmhost.options.system import System
from llmhost.options.training import Training, TrainingJob
from llmhost.options.vram import Vram
from llmhost.services import catalogue
from llmhost.services.addresses import endpoint_of, services_in
from llmhost.services.app import App
from llmhost.services.base import AnyService, ServiceOptions, UiOptions


@dataclass(frozen=True)
class Ui:
    """A browser UI."""

    port: int
    """Port on the host's loopback interface."""
    ui_port: int
    """Port of the gateway, for browsers."""
    sources: tuple[IpNetwork, ...]
    """Networks that may reach it."""


class Settings(Section):
    """The declared state of one host."""

    preflight: Preflight = Field(default_factory=Preflight)
    system: System = Field(default_factory=System)
    network: HostNetwork = Field(default_factory=HostNetwork)
    nvidia_driver: NvidiaDriver = Field(default_factory=NvidiaDriver)
    docker: Docker = Field(default_factory=Docker)
    container_toolkit: ContainerToolkit = Field(default_factory=ContainerToolkit)
    firewall: Firewall = Field(default_factory=Firewall)
    engine_group: EngineGroup = Field(default_factory=EngineGroup)
    gateway: Gateway = Field(default_factory=Gateway)
    stack: Stack = Field(default_factory=Stack)
    model_store: ModelStore = Field(default_factory=ModelStore)
    healing: Healing = Field(default_factory=Healing)
    backup: Backup = Field(default_factory=Backup)
    monitoring: Monitoring = Field(default_factory=Monitoring)
    announce: Announce = Field(default_factory=Announce)
    training: Training = Field(default_factory=Training)
    vram: Vram = Field(default_factory=Vram)
    policy: ModelPolicy = Field(default_factory=ModelPolicy)
    app_server: AppServer = Field(default_factory=AppServer)
    receipt: Receipt = Field(default_factory=Receipt)

    member: str = ""
    """Name of this host in its engine group; empty: it is in none."""

    services: tuple[str, ...] = ()
    """Services of the stack, by their names in the catalog, followed by apps; the first with routes
    is at the gateway's `/`."""

    models: tuple[Model, ...] = ()
    """Models baked into the services' images."""

    apps: tuple[App, ...] = ()
    """Programs of the site, which are services too."""

    api_clients: tuple[ApiClient, ...] = ()
    """Clients of the gateway."""

    training_jobs: tuple[TrainingJob, ...] = ()
    """Adapters that `llmhost train` trains on this host."""

    service_options: Mapping[str, SerializeAsAny[ServiceOptions]] = Field(default_factory=dict)
    """Options of each declared service; their keys in the inventory are `<service>_<option>`."""

    def options(self, service: str) -> ServiceOptions:
        """The options of a declared service."""
        return self.service_options[service]

    @property
    def catalogue(self) -> tuple[AnyService, ...]:
        """Catalog entries of the declared services and apps."""
        entries = {**{app.name: app.service for app in self.apps}, **catalogue()}
        return tuple(entries[name] for name in self.services)

    @property
    def offered(self) -> tuple[AnyService, ...]:
        """Services that the gateway passes requests on to: those with routes, of this host or of
        the servers behind it."""
        found = self.catalogue
        if self.gateway.upstreams:
            known = catalogue()
            names = self.gateway.upstream_services
            found = tuple(known[name] for name in names if name in known)
        return tuple(each for each in found if each.routes and self.answers(each))

    def answers(self, service: AnyService) -> bool:
        """Whether a declared service answers on this host: of an engine group, the head does."""
        return not (service.in_groups and self.serves_a_head)

    @property
    def leads_group(self) -> bool:
        """Whether it answers the requests of its engine group."""
        return bool(self.member) and self.member == self.engine_group.head

    @property
    def group_services(self) -> tuple[str, ...]:
        """Services that run in its engine group, on the host's network and with its token."""
        return tuple(each.name for each in self.catalogue if self.member and each.in_groups)

    @property
    def other_members(self) -> tuple[str, ...]:
        """The other hosts of its engine group."""
        names = self.engine_group.names if self.member else ()
        return tuple(name for name in names if name != self.member)

    @property
    def serves_a_head(self) -> bool:
        """Whether another member of its engine group answers the requests."""
        return bool(self.member) and self.member != self.engine_group.head

    @property
    def only_computes_for(self) -> str:
        """The head that answers for this host, if this host answers nothing; otherwise empty."""
        return (self.engine_group.head or "") if self.serves_a_head and not self.offered else ""

    @property
    def uis(self) -> Mapping[str, Ui]:
        """The browser UIs of the declared services, by service."""
        options = self.service_options.items()
        return {
            name: Ui(each.port, each.ui_port, each.ui_sources or self.gateway.sources)
            for name, each in options
            if isinstance(each, UiOptions) and each.ui_port
        }

    def models_of(self, service: str) -> tuple[Model, ...]:
        """The models that a service runs."""
        return tuple(model for model in self.models if model.service == service)

    def baked(self, model: Model) -> Mapping[str, str]:
        """SHA-256 of each file of a model's weights, by its path in the image of its service."""
        held = {
            each.digest: each.baked
            for service in self.catalogue
            if service.name == model.service
            for each in service.holders(self.models_of(service.name))
        }
        return held.get(model.digest, model.baked)

    @property
    def gpu_requests(self) -> dict[str, GpuRequest]:
        """GPU request of each service that runs on GPUs."""
        options = self.service_options.items()
        return {service: of.gpu_request for service, of in options if of.gpu_request}

    @property
    def admitted_to_gateway(self) -> tuple[IpNetwork, ...]:
        """Networks that the firewall allows to connect to the gateway.

        At most `gateway_sources`; if all clients have `sources`, only those. Services that call the
        gateway do so from Docker's networks.
        """
        named = [client.sources for client in self.api_clients]
        found = self.gateway.sources
        if all(named) and named:
            found = within(found, [each for sources in named for each in sources or ()])
        return with_network(found, self.docker.address_pool) if self.gateway_callers else found

    @property
    def gateway_callers(self) -> tuple[str, ...]:
        """Services that call the gateway of this host."""
        return tuple(each.name for each in self.catalogue if each.calls_gateway)

    @property
    def destinations(self) -> tuple[Destination, ...]:
        """What containers may connect to outside the stack if `stack_egress` is `deny`: as
        declared, and the addresses in URLs of services."""
        named = (
            Destination(networks=(ip_network(host),), port=port)
            for _, _, host, port in self._outside_endpoints()
            if port and _is_address(host) and not ip_address(host).is_loopback
        )
        return tuple(dict.fromkeys((*self.stack.egress_allow, *named)))

    @property
    def unreachable_urls(self) -> tuple[tuple[str, str], ...]:
        """Services with URLs that their containers cannot reach if `stack_egress` is `deny`."""
        names = {(each.name, each.port) for each in self.stack.egress_allow}
        return tuple(
            (service, url)
            for service, url, host, port in self._outside_endpoints()
            if not port or not (_is_address(host) or (host, port) in names)
        )

    def _outside_endpoints(self) -> Iterator[tuple[str, str, str, int]]:
        """Service, URL, host and port of each URL to another place than a service of the stack."""
        for service, options in self.service_options.items():
            for url in options.urls:
                if not services_in((url,)):
                    yield service, url, *endpoint_of(url)

    @property
    def digest(self) -> str:
        """SHA-256 of all settings."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def component_sections() -> dict[str, type[Section]]:
    """Section classes by the prefix of their keys."""
    fields = Settings.model_fields.items()
    return {
        name: field.annotation
        for name, field in fields
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }


RECORDS: dict[str, type[Section]] = {
    "models": Model,
    "apps": App,
    "api_clients": ApiClient,
    "training_jobs": TrainingJob,
}
"""Classes of records, by the key of their list in the inventory."""
