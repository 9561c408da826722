"""Healing: a timer restarts containers whose health checks fail."""

import hashlib

from llmhost.operations import files, systemd
from llmhost.operations.component import component
from llmhost.settings import Settings
from llmhost.system.files import Absent, File
from llmhost.template import render

SCRIPT = "/usr/local/sbin/llmhost-heal"
SERVICE = "/etc/systemd/system/llmhost-heal.service"
TIMER = "/etc/systemd/system/llmhost-heal.timer"


@component("Healing")
def heal_containers(settings: Settings) -> None:
    """Restart unhealthy containers of the stack, with a limit; or remove the timer that does."""
    wanted = settings.healing.enabled and bool(settings.services)
    if not wanted:
        systemd.service(
            "llmhost-heal.timer",
            running=False,
            enabled=False,
            name="Stop healing unhealthy containers",
        )
    files.present(
        *(_files(settings) if wanted else [Absent(path) for path in (SCRIPT, SERVICE, TIMER)]),
        name="Declare how unhealthy containers are restarted",
    )
    if wanted:
        systemd.without_overrides(
            "llmhost-heal.timer",
            "llmhost-heal.service",
            known=settings.system.accepted_overrides,
            then="reload",
            name="Remove overrides of the healing units",
        )
        systemd.service(
            "llmhost-heal.timer",
            others=["llmhost-heal.service"],
            name="Run the timer that heals unhealthy containers",
        )


def _files(settings: Settings) -> list[File]:
    script = render(
        "healing/llmhost-heal.j2", project=settings.stack.project, healing=settings.healing
    )
    service = render("healing/llmhost-heal.service.j2")
    digest = hashlib.sha256(service.encode()).hexdigest()[:16]
    timer = render("healing/llmhost-heal.timer.j2", digest=digest, healing=settings.healing)
    return [File(SCRIPT, script, mode="0755"), File(SERVICE, service), File(TIMER, timer)]
