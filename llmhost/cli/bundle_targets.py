"""What a bundle brings to a host, as the inventory declares it. No host is asked anything."""

from llmhost.bundle.manifest import Release
from llmhost.docker.image import ServiceImage
from llmhost.host_packages import host_packages
from llmhost.inventory.role import Role
from llmhost.inventory.site import SiteHost
from llmhost.stack.project import service_images


def images_of(host: SiteHost) -> tuple[ServiceImage, ...]:
    """The images of its services."""
    return service_images(host.settings) if host.role is Role.LLM_SERVER else ()


def packages_of(host: SiteHost, release: Release) -> list[str]:
    """What the deploy may install on it."""
    return list(host_packages(host, release.distribution, release.version))
