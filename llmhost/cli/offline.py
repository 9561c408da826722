"""`llmhost verify --offline`: the services come up and answer with the network cut."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.markup import escape

from llmhost.cli.errors import stop
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.inventory.ssh import ssh_config
from llmhost.services.base import AnyService, Request
from llmhost.settings import Settings
from llmhost.verify import offline

# Beside the start of all services: the requests, and whatever else is slow.
_GRACE_SECONDS = 300
# What a service does after its first answer counts too.
_LISTEN_SECONDS = 10
_console = Console(soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class Shell:
    """Runs scripts on a host, as root."""

    command: tuple[str, ...]

    def run(self, script: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self.command, input=script, capture_output=True, text=True)

    def must(self, script: str) -> str:
        """Its output; RuntimeError with its last words if it fails."""
        ran = self.run(script)
        if ran.returncode:
            words = (ran.stderr or ran.stdout).strip().splitlines()
            raise RuntimeError("\n".join(words[-20:]) or f"status {ran.returncode}")
        return ran.stdout


def verify_offline(name: str, data: Mapping[str, Any]) -> bool:
    """Cut a host's network, recreate its containers, ask each service; True if nobody tried to
    get out and everybody answered. The network is restored in any case."""
    try:
        settings = read_settings(data)
    except SettingsError as error:
        stop(*(problem.sentence(name) for problem in error.problems))
    if not settings.services:
        stop(f"{name}: no service is declared, so there is nothing to verify offline")
    with _shell(name, data) as shell:
        try:
            return _verify(name, settings, shell)
        except RuntimeError as error:
            _console.print(f"[red]failed[/red]: {escape(f'{name}: {error}')}")
            return False
        finally:
            shell.run(offline.restore_script())
            _console.print(f"{escape(name)}: the network is restored")


def _verify(name: str, settings: Settings, shell: Shell) -> bool:
    start = settings.stack.start_timeout_seconds
    controller = shell.run('echo "${SSH_CONNECTION%% *}"').stdout.strip()
    _console.print(f"{escape(name)}: cutting the network, for {start + _GRACE_SECONDS} s at most")
    cut = offline.cut_script(controller, settings.firewall.ssh_port, start + _GRACE_SECONDS)
    shell.must(cut)
    _console.print(f"{escape(name)}: making all containers anew")
    good = True
    try:
        shell.must(offline.recreate_script(settings.stack.compose_file, start))
    except RuntimeError as error:
        # What was tried may be why.
        _console.print(f"[red]failed[/red]: {escape(f'{name}: {error}')}")
        good = False
    for service in settings.catalogue if good else ():
        good &= _ask(service, settings, shell)
    time.sleep(_LISTEN_SECONDS)
    for attempt in offline.parse_attempts(shell.must(offline.attempts_script())):
        verdict = "[red]failed[/red]" if attempt.container else "[dim]noted[/dim]"
        _console.print(f"{verdict}: {escape(attempt.sentence)}")
        good &= not attempt.container
    if good:
        _console.print(f"[green]passed[/green]: {escape(name)}: no container tried to get out")
    return good


def _ask(service: AnyService, settings: Settings, shell: Shell) -> bool:
    request = service.request(settings.models_of(service.name)) or _first_get(service)
    port = settings.options(service.name).port
    if request is None or not port:
        _console.print(f"[dim]noted[/dim]: {escape(service.name)} has nothing to be asked for")
        return True
    seconds = settings.gateway.read_timeout_seconds
    script = offline.request_script(port, request.path, request.body, seconds)
    asked = shell.run(script)
    answered = asked.returncode == 0 and bool(asked.stdout.strip() or request.body is None)
    verdict = "[green]passed[/green]" if answered else "[red]failed[/red]"
    method = "GET" if request.body is None else "POST"
    _console.print(f"{verdict}: {escape(f'{service.name}: {method} {request.path}')}")
    if not answered:
        _console.print(escape((asked.stdout + asked.stderr).strip()[-1000:]))
    return answered


def _first_get(service: AnyService) -> Request | None:
    paths = [route.path for route in service.routes if "GET" in route.methods]
    return Request(paths[0]) if paths else None


@contextmanager
def _shell(name: str, data: Mapping[str, Any]) -> Iterator[Shell]:
    sudo = ("sudo", "--non-interactive") if data.get("_sudo") else ()
    if name == "@local":
        yield Shell((*sudo, "sh", "-s"))
        return
    with TemporaryDirectory(prefix="llmhost-") as directory:
        config = Path(directory, "config")
        config.write_text(ssh_config(name, data, Path(directory)))
        # sudo forgets where the connection came from unless it is told.
        kept = ("--preserve-env=SSH_CONNECTION",) if sudo else ()
        yield Shell(("ssh", "-F", str(config), name, *sudo, *kept, "sh", "-s"))
