"""The hosts that a bundle is for, as the inventory declares them. No host is asked anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmhost.bundle.manifest import Release
from llmhost.cli.errors import stop
from llmhost.cli.session import hosts_within, load_inventory
from llmhost.docker.image import ServiceImage
from llmhost.host_packages import host_packages
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site import APP_SERVERS
from llmhost.settings import Settings
from llmhost.stack.project import service_images


@dataclass(frozen=True)
class Target:
    """One host of the inventory, with its merged data."""

    name: str
    data: Mapping[str, Any]
    settings: Settings
    app_server: bool

    @property
    def images(self) -> tuple[ServiceImage, ...]:
        """The images of its services."""
        serves = not (self.app_server or self.settings.gateway.upstreams)
        return service_images(self.settings) if serves else ()

    def packages(self, release: Release) -> list[str]:
        """What the deploy may install on it."""
        names = host_packages(
            self.settings, release.distribution, release.version, app_server=self.app_server
        )
        return list(names)


def targets_of(inventory: str, limit: Sequence[str]) -> list[Target]:
    """The hosts within a limit; stops with all mistakes of their settings."""
    found: list[Target] = []
    mistakes: list[str] = []
    for host in hosts_within(load_inventory(inventory), limit):
        data = host.data.dict()
        try:
            settings = read_settings(data)
        except SettingsError as error:
            mistakes += [problem.sentence(host.name) for problem in error.problems]
        else:
            found.append(Target(host.name, data, settings, APP_SERVERS in host.groups))
    if mistakes:
        stop(*mistakes)
    return sorted(found, key=lambda target: target.name)
