"""Healing: containers whose health checks fail, or that should run and do not, are restarted."""

import hashlib
import shlex

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
    """Restart containers that are unhealthy or do not run, with a limit; or remove what does."""
    wanted = settings.healing.enabled and bool(settings.services)
    if not wanted:
        off = {"running": False, "enabled": False}
        systemd.service("llmhost-heal.timer", **off, name="Stop healing containers")
        systemd.service("llmhost-heal.service", **off, name="Do not heal when Docker starts")
    files.present(
        *(_files(settings) if wanted else [Absent(path) for path in (SCRIPT, SERVICE, TIMER)]),
        name="Configure how containers are healed",
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
            name="Run the healing timer",
        )
        systemd.starts_at_boot("llmhost-heal.service", name="Heal containers when Docker starts")
        systemd.has_run(
            "llmhost-heal.service",
            newer_than=[SCRIPT, SERVICE],
            name="Heal containers as they are configured now",
        )


def _files(settings: Settings) -> list[File]:
    script = render(
        "healing/llmhost-heal.j2",
        project=settings.stack.project,
        compose_file=shlex.quote(settings.stack.compose_file),
        stopped=shlex.quote(settings.stack.stopped),
        healing=settings.healing,
    )
    service = render("healing/llmhost-heal.service.j2")
    digest = hashlib.sha256(service.encode()).hexdigest()[:16]
    timer = render("healing/llmhost-heal.timer.j2", digest=digest, healing=settings.healing)
    return [File(SCRIPT, script, mode="0755"), File(SERVICE, service), File(TIMER, timer)]
