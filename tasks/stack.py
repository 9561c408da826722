"""Stack: the services, each in an image with its models, run by Docker Compose."""

from collections.abc import Sequence
from functools import partial

from llmhost import backup
from llmhost.docker.compose import Project
from llmhost.nvidia.gpu_allocation import Devices
from llmhost.nvidia.state import Gpu
from llmhost.operations import compose, images
from llmhost.operations.component import component
from llmhost.settings import Settings
from llmhost.stack.limits import Capacity
from llmhost.stack.project import compose_project
from llmhost.stack.stand_ins import with_stand_ins
from llmhost.stack.training import all_images


@component("Stack")
def run_stack(settings: Settings, host_name: str = "") -> None:
    """Bake the models into the services' images and run the declared services of the host of this
    name."""
    bake_images(settings)
    backs_up = settings.backup.repository and settings.backup.before_updates
    compose.project(
        compose_project(settings),
        gpus=settings.gpu_requests,
        on_host=partial(_on_host, settings),
        keeping=[
            service.name
            for service in settings.catalogue
            if service.data_volumes(settings.options(service.name))
        ],
        together=settings.other_members,
        backup=partial(_backup, settings, host_name) if backs_up else None,
        name="Run the declared services",
    )


def _on_host(
    settings: Settings, devices: Devices, capacity: Capacity, gpus: Sequence[Gpu]
) -> Project:
    project = compose_project(settings, devices, capacity)
    return with_stand_ins(project, settings, devices, gpus)


def _backup(settings: Settings, name: str) -> compose.Backup:
    """The deploy has the host's lock."""
    command = backup.script_command(backup.question(name, settings, "backup", lock=""))
    return compose.Backup(command, backup.secrets(settings).decode())


def bake_images(settings: Settings, *, once: bool = True) -> None:
    """Provide the services' images: existing, loaded from a bundle, or built.

    With `once`, what they are built from does not stay on the disk a second time.
    """
    images.built(
        *all_images(settings),
        uploads=settings.stack.uploads,
        check_room=settings.preflight.min_free_disk_gib > 0,
        once=once,
        name="Bake the models into the services' images",
    )
