"""What a server that has just booted still starts: units, and services that load their models.

A check that came earlier would report a fault that ends by itself.
"""

import shlex
import time
from collections.abc import Callable

from testinfra.host import Host

from llmhost.options.stack import Stack

_BOOT_SECONDS = 300
_INTERVAL = 0.5


def wait_for_boot(host: Host, tell: Callable[[str], None]) -> None:
    """Return when systemd has started what starts at boot, or after five minutes."""
    if host.run("systemctl is-system-running").stdout.strip() in ("initializing", "starting"):
        tell("waiting for the end of the boot")
        host.run(f"timeout {_BOOT_SECONDS} systemctl is-system-running --wait")


def wait_for_services(host: Host, stack: Stack, tell: Callable[[str], None]) -> None:
    """Return when no service is starting, or after the time that a deploy gives them.

    A service whose container had to be started again has failed: nothing waits for it.
    """
    last = time.monotonic() + stack.start_timeout_seconds
    while (names := _starting(host, stack.project)) and time.monotonic() < last:
        tell(f"waiting for the start of {', '.join(names)}")
        time.sleep(_INTERVAL)


def _starting(host: Host, project: str) -> list[str]:
    label = f"label=com.docker.compose.project={shlex.quote(project)}"
    shown = '{{.RestartCount}} {{index .Config.Labels "com.docker.compose.service"}}'
    found = host.run(
        f"docker ps --quiet --filter health=starting --filter {label}"
        f" | xargs --no-run-if-empty docker inspect --format '{shown}'"
    )
    lines = found.stdout.splitlines()
    return sorted(line.removeprefix("0 ") for line in lines if line.startswith("0 "))
