"""What a bundle contains for a host, derived from the inventory; no host is contacted."""

from llmhost.bundle.manifest import Release
from llmhost.docker.image import ServiceImage
from llmhost.host_packages import host_packages
from llmhost.inventory.role import Role
from llmhost.inventory.site import SiteHost
from llmhost.stack.training import all_images


def images_of(host: SiteHost) -> tuple[ServiceImage, ...]:
    """The images of a host's services."""
    return all_images(host.settings) if host.role is Role.LLM_SERVER else ()


def packages_of(host: SiteHost, release: Release) -> list[str]:
    """The packages that a deploy may install on a host."""
    return list(host_packages(host, release.distribution, release.version))
