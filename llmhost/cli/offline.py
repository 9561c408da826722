"""`llmhost verify --offline`: the services come up and answer with the network cut."""

import time

from rich.console import Console
from rich.markup import escape

from llmhost.cli.errors import stop
from llmhost.cli.remote import Remote, RemoteError, remote
from llmhost.inventory.site import SiteHost
from llmhost.services.base import AnyService, Request
from llmhost.settings import Settings
from llmhost.verify import offline

# Beside the start of all services: the requests, and whatever else is slow.
_GRACE_SECONDS = 300
# What a service does after its first answer counts too.
_LISTEN_SECONDS = 10
_console = Console(soft_wrap=True, highlight=False)


def verify_offline(host: SiteHost) -> bool:
    """Cut a host's network, recreate its containers, ask each service; True if nobody tried to
    get out and everybody answered. The network is restored in any case."""
    name, settings = host.name, host.settings
    if not settings.services:
        stop(f"{name}: no service is declared, so there is nothing to verify offline")
    with remote(name, host.data) as reached:
        try:
            return _verify(name, settings, reached)
        except RemoteError as error:
            _console.print(f"[red]failed[/red]: {escape(str(error))}")
            return False
        finally:
            reached.attempt(offline.restore_script())
            _console.print(f"{escape(name)}: the network is restored")


def _verify(name: str, settings: Settings, reached: Remote) -> bool:
    start = settings.stack.start_timeout_seconds
    # sudo forgets where the connection came from.
    controller = reached.run_as_login('echo "${SSH_CONNECTION%% *}"').strip()
    _console.print(f"{escape(name)}: cutting the network, for {start + _GRACE_SECONDS} s at most")
    cut = offline.cut_script(controller, settings.firewall.ssh_port, start + _GRACE_SECONDS)
    reached.run(cut)
    _console.print(f"{escape(name)}: making all containers anew")
    good = True
    try:
        reached.run(offline.recreate_script(settings.stack.compose_file, start))
    except RemoteError as error:
        # What was tried may be why.
        _console.print(f"[red]failed[/red]: {escape(str(error))}")
        good = False
    for service in settings.catalogue if good else ():
        good &= _ask(service, settings, reached)
    time.sleep(_LISTEN_SECONDS)
    for attempt in offline.parse_attempts(reached.run(offline.attempts_script())):
        verdict = "[red]failed[/red]" if attempt.container else "[dim]noted[/dim]"
        _console.print(f"{verdict}: {escape(attempt.sentence)}")
        good &= not attempt.container
    if good:
        _console.print(f"[green]passed[/green]: {escape(name)}: no container tried to get out")
    return good


def _ask(service: AnyService, settings: Settings, reached: Remote) -> bool:
    request = service.request(settings.models_of(service.name)) or _first_get(service)
    port = settings.options(service.name).port
    if request is None or not port:
        _console.print(f"[dim]noted[/dim]: {escape(service.name)} has nothing to be asked for")
        return True
    seconds = settings.gateway.read_timeout_seconds
    script = offline.request_script(port, request.path, request.body, seconds)
    asked = reached.attempt(script)
    answered = asked.returncode == 0 and bool(asked.stdout.strip() or request.body is None)
    verdict = "[green]passed[/green]" if answered else "[red]failed[/red]"
    method = "GET" if request.body is None else "POST"
    _console.print(f"{verdict}: {escape(f'{service.name}: {method} {request.path}')}")
    if not answered:
        said = (asked.stdout + asked.stderr).decode(errors="replace")
        _console.print(escape(said.strip()[-1000:]))
    return answered


def _first_get(service: AnyService) -> Request | None:
    paths = [route.path for route in service.routes if "GET" in route.methods]
    return Request(paths[0]) if paths else None
