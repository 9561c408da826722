"""`llmhost verify --offline`: check that the services start and answer without a network."""

import shlex
import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from llmhost.cli.errors import stop
from llmhost.cli.remote import Remote, RemoteError, remote
from llmhost.inventory.site import SiteHost
from llmhost.services.base import AnyService, Request
from llmhost.settings import Settings
from llmhost.verify import offline

# Added to the start time of all services: time for the requests and other slow steps.
_GRACE_SECONDS = 300
# Also observe what services do after their first answer.
_LISTEN_SECONDS = 10
_console = Console(soft_wrap=True, highlight=False)


def verify_offline(hosts: Sequence[SiteHost]) -> bool:
    """Cut each host's network, recreate its containers, send each service a request. True if every
    service answered and no container tried to connect out. The network is always restored. Stops
    before the first cut if a host cannot be verified in this way."""
    if unfit := [*filter(None, map(_unfit, hosts))]:
        stop(*unfit)
    results = [_verified(host) for host in hosts]
    return all(results)


def _unfit(host: SiteHost) -> str:
    if not host.settings.services:
        return (
            f"{host.name}: the inventory declares no service, so there is nothing to verify"
            " offline; choose other hosts with --limit"
        )
    if host.settings.member:
        return (
            f"{host.name}: its engine group needs the network between its members; verify other"
            " hosts"
        )
    return ""


def _verified(host: SiteHost) -> bool:
    name, settings = host.name, host.settings
    with remote(name, host.data) as reached:
        try:
            return _verify(name, settings, reached)
        except RemoteError as error:
            _console.print(f"[red]failed[/red]: {escape(str(error))}")
            return False
        finally:
            if reached.attempt(offline.restore_script()).returncode:
                seconds = settings.stack.start_timeout_seconds + _GRACE_SECONDS
                _console.print(
                    f"[red]failed[/red]: {escape(name)}: the network could not be restored from"
                    f" here; if it was cut, a timer on the host restores it within {seconds} s"
                )
            else:
                _console.print(f"{escape(name)}: the network is restored")


def _verify(name: str, settings: Settings, reached: Remote) -> bool:
    start = settings.stack.start_timeout_seconds
    # sudo drops SSH_CONNECTION.
    controller = reached.run_as_login('echo "${SSH_CONNECTION%% *}"').strip()
    _console.print(f"{escape(name)}: cutting the network for at most {start + _GRACE_SECONDS} s")
    cut = offline.cut_script(controller, settings.firewall.ssh_port, start + _GRACE_SECONDS)
    reached.run(cut)
    _console.print(f"{escape(name)}: recreating all containers")
    good = True
    try:
        reached.run(offline.recreate_script(settings.stack.compose_file, start))
    except RemoteError as error:
        # Attempts to connect out may be the reason.
        _console.print(f"[red]failed[/red]: {escape(str(error))}")
        good = False
    stopped = reached.run(f"ls {shlex.quote(settings.stack.stopped)} 2>/dev/null || true").split()
    for service in settings.catalogue if good else ():
        if service.name in stopped:
            _console.print(f"[dim]noted[/dim]: {escape(service.name)} was stopped by an operator")
        else:
            good &= _ask(service, settings, reached)
    time.sleep(_LISTEN_SECONDS)
    for attempt in offline.parse_attempts(reached.run(offline.attempts_script())):
        verdict = "[red]failed[/red]" if attempt.container else "[dim]noted[/dim]"
        _console.print(f"{verdict}: {escape(attempt.sentence)}")
        good &= not attempt.container
    if good:
        _console.print(f"[green]passed[/green]: {escape(name)}: no container tried to connect out")
    return good


def _ask(service: AnyService, settings: Settings, reached: Remote) -> bool:
    requests = service.requests(settings.models_of(service.name)) or _first_get(service)
    port = settings.options(service.name).port
    if not requests or not port:
        _console.print(f"[dim]noted[/dim]: {escape(service.name)} has no request to test")
        return True
    seconds = settings.gateway.read_timeout_seconds
    found = [answers(service.name, request, port, seconds, reached) for request in requests]
    return all(found)


def answers(name: str, request: Request, port: int, seconds: int, reached: Remote) -> bool:
    """Send a request to the port of service `name`, and report whether the answer is correct."""
    script = offline.request_script(port, request.path, request.body, seconds)
    answer = reached.attempt(script)
    text = answer.stdout.decode(errors="replace")
    answered = answer.returncode == 0 and bool(text.strip() or request.body is None)
    answered = answered and request.expects in text
    verdict = "[green]passed[/green]" if answered else "[red]failed[/red]"
    method = "GET" if request.body is None else "POST"
    _console.print(f"{verdict}: {escape(f'{name}: {method} {request.path}')}")
    if not answered:
        output = text + answer.stderr.decode(errors="replace")
        _console.print(escape(output.strip()[-1000:]))
    return answered


def _first_get(service: AnyService) -> tuple[Request, ...]:
    paths = [route.path for route in service.routes if "GET" in route.methods]
    return (Request(paths[0]),) if paths else ()
