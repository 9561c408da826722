"""The question to one host: files/status/probe.py with its arguments, in one command. Pure."""

import json
import shlex

from llmhost.backup import record, without_backup
from llmhost.gateway.nginx import ACCESS_LOG
from llmhost.gateway.tls import CERTIFICATE
from llmhost.gateway.tree import NginxPaths
from llmhost.inventory.role import Role
from llmhost.inventory.site import SiteHost
from llmhost.resources import FILES

WINDOW_SECONDS = 300
"""The requests of this time are summarized."""

_SCRIPT = FILES / "status/probe.py"
_NO_PYTHON = "this host has no python3: deploy it first"


def probe_command(host: SiteHost) -> str:
    """Shell command for root; it prints one JSON object."""
    asked = json.dumps(_asked(host))
    script = shlex.quote(_SCRIPT.read_text(encoding="utf-8"))
    return (
        f"if command -v python3 >/dev/null; then python3 -I -c {script} {shlex.quote(asked)};"
        f" else echo {shlex.quote(_NO_PYTHON)} >&2; exit 1; fi"
    )


def _asked(host: SiteHost) -> dict[str, object]:
    settings, gateway = host.settings, host.role is not Role.APP_SERVER
    tls = gateway and settings.gateway.tls != "off"
    units = ["docker.service"] if settings.services else []
    return {
        "project": settings.stack.project if settings.services else "",
        "stopped": settings.stack.stopped,
        "history": f"{settings.receipt.directory}/history.jsonl",
        "receipt": settings.receipt.path,
        "backup": "" if without_backup(host) else record(settings),
        "certificate": f"{NginxPaths().own}/{CERTIFICATE}" if tls else "",
        "log": ACCESS_LOG if gateway else "",
        "seconds": WINDOW_SECONDS,
        "paths": ["/", settings.docker.data_root, "/var/log"],
        "units": [*units, *(["nginx.service"] if gateway else [])],
    }
