"""Stack: the services, each in an image with its models, joined by Docker Compose."""

from functools import partial

from pyinfra.api import deploy

from llmhost.operations import apt, compose, images
from llmhost.settings.root import Settings
from llmhost.stack import compose_project, service_images


@deploy("Stack")
def run_stack(settings: Settings) -> None:
    """Bake the models into the services' images, and let the declared services run."""
    if settings.services:
        apt.packages("curl", name="Install curl, to download weights and to ask services")
        apt.packages("nftables", name="Install nft, to verify that services work offline")
    images.built(
        *service_images(settings),
        uploads=settings.stack.uploads,
        name="Bake the models into the services' images",
    )
    compose.project(
        compose_project(settings),
        gpus=settings.gpu_requests,
        with_devices=partial(compose_project, settings),
        name="Run the declared services",
    )
