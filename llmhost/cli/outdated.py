"""`llmhost outdated`: what is older than what its source offers, and what an update changes."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape

from llmhost.announce.process import announce
from llmhost.cli.arguments import Hosts, Inventory
from llmhost.cli.errors import DRIFT, ERROR, stop
from llmhost.cli.hub import HubError, Hubs
from llmhost.cli.inventory_file import load_inventory
from llmhost.cli.parallel import run_on_each
from llmhost.cli.registry import Registries, RegistryError
from llmhost.cli.session import checked_site, connected, hosts_within, site_hosts
from llmhost.inventory.site import Site
from llmhost.inventory.site_reader import no_rules, no_site_rules
from llmhost.options.model import Model
from llmhost.options.model_source import HubSource, OllamaSource
from llmhost.outdated.advisories import query_of, sentence
from llmhost.outdated.images import Reference, newest, parse
from llmhost.outdated.report import (
    PACKAGES,
    Outdated,
    OutdatedReport,
    announced,
    host_findings,
    lists_note,
    matrix_note,
    newer_release,
    packages_of,
    report,
    stack_changes,
    titled,
)
from llmhost.resources import script
from llmhost.units import reason
from llmhost.version import toolkit

_ANSWER_SECONDS = 60
_AT_ONCE = 8
_MOST_PAGES = 20
Uses = list[tuple[str, str]]
"""Host and service."""


@dataclass
class _Results:
    """What was found, and what could not be asked, by source."""

    outdated: list[Outdated] = field(default_factory=list)
    unreachable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def outdated(
    inventory: Inventory,
    hosts: Hosts = None,
    tell: Annotated[
        bool, typer.Option("--announce", help="Also send it to the receivers in announce_*")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs outdated.schema.json")
    ] = False,
) -> None:
    """Show newer versions than the pins, what an update changes, and known vulnerabilities.

    The controller asks the registries of images, the hubs of models, OSV and PyPI; hosts say what
    their package lists have. Nothing changes. --announce sends nothing if all sources were reached
    and nothing is newer. Exit status: 0 nothing is newer, 2 something is, 1 a source could not be
    reached.
    """
    found = gathered(inventory, hosts or [])
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        _print(found)
    for source, why in found.unreachable.items():
        typer.echo(f"{source} {why}: its updates are unknown", err=True)
    if tell:
        _announce(inventory, hosts or [], found)
    raise typer.Exit(ERROR if found.unreachable else DRIFT if found.outdated else 0)


def _announce(path: str, limit: list[str], found: OutdatedReport) -> None:
    receivers = {
        host.settings.announce.model_dump_json(): host.settings.announce
        for host in site_hosts(path, limit, no_rules)
        if host.settings.announce.is_declared
    }
    if not receivers:
        stop("--announce: the inventory declares no announce_webhook and no announce_mail_to")
    if found.outdated or found.unreachable:
        body = {"event": "outdated", "text": announced(found), **asdict(found)}
        for options in receivers.values():
            for why in announce(options, body):
                typer.echo(f"this was not announced: {why}", err=True)


def gathered(path: str, limit: list[str]) -> OutdatedReport:
    """Ask all sources at the same time."""
    inventory = load_inventory(path)
    hosts = hosts_within(inventory, limit)
    site = checked_site(inventory, hosts, no_rules, no_site_rules)
    names = [host.name for host in hosts]
    within = {name: site[name] for name in names}
    results = _Results()
    questions: list[Callable[[], None]] = [
        partial(_llmhost, results, names),
        *_engines(within, results),
        *_models(within, results),
    ]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        jobs = [pool.submit(question) for question in questions]
        _hosts(path, within, results)
        for job in jobs:
            job.result()
    today = datetime.now(UTC).date()
    notes = [*results.notes, matrix_note(today)]
    return report(results.outdated, dict(sorted(results.unreachable.items())), notes)


def _engines(site: Site, results: _Results) -> Iterator[Callable[[], None]]:
    """A question for each image that engines are built from."""
    uses: dict[str, Uses] = {}
    databases: dict[str, str] = {}
    for host in site.values():
        for service, options in host.settings.service_options.items():
            if options.image:
                uses.setdefault(options.image, []).append((host.name, service))
                if url := host.settings.stack.osv_url:
                    databases[options.image] = url
    insecure = {each for host in site.values() for each in host.settings.docker.insecure_registries}
    mirrors = [each for host in site.values() for each in host.settings.docker.registry_mirrors]
    for image, used in uses.items():
        registries = Registries(insecure, [*dict.fromkeys(mirrors)])
        known = partial(_vulnerabilities, parse(image), used, databases.get(image), results)
        yield partial(_engine, parse(image), used, registries, known, results)


def _vulnerabilities(image: Reference, uses: Uses, database: str | None, results: _Results) -> str:
    """What is known of the engine in an image, in a sentence; empty if nothing is."""
    query = query_of(uses[0][1], image.tag) if database else None
    if query is None:
        return ""
    found: list[Mapping[str, Any]] = []
    page = ""
    try:
        for _ in range(_MOST_PAGES):
            asked = {**query, **({"page_token": page} if page else {})}
            answer = httpx.post(f"{str(database).rstrip('/')}/v1/query", json=asked, timeout=30)
            body = answer.raise_for_status().json()
            found += body.get("vulns", ())
            page = body.get("next_page_token", "")
            if not page:
                break
        return sentence(query, found)
    except httpx.HTTPStatusError as error:
        results.unreachable[str(database)] = f"answered {error.response.status_code}"
    except (httpx.HTTPError, ValueError) as error:
        results.unreachable[str(database)] = f"has no answer: {reason(error)}"
    except (AttributeError, KeyError, RecursionError, TypeError):
        results.unreachable[str(database)] = "does not answer as OSV does"
    return ""


def _engine(
    image: Reference,
    uses: Uses,
    registries: Registries,
    vulnerabilities: Callable[[], str],
    results: _Results,
) -> None:
    known = vulnerabilities()
    latest, rebuilt = "", False
    try:
        with registries:
            latest = newest(image.tag, registries.tags(image)) if image.tag else ""
            rebuilt = bool(image.tag) and not latest and not registries.is_current(image)
    except RegistryError as error:
        results.unreachable[image.registry] = str(error)
    if not latest and not rebuilt and not known:
        return
    services = list(dict.fromkeys(service for _, service in uses))
    option = " and ".join(f"{service}_image" for service in services)
    results.outdated.append(
        Outdated(
            kind="engine",
            name=image.name,
            hosts=tuple(dict.fromkeys(host for host, _ in uses)),
            current=image.tag,
            latest=latest or (f"{image.tag}, built again" if rebuilt else ""),
            update=f"set {option}, with the digest of the tag",
            changes=stack_changes(uses),
            security=known,
        )
    )


def _models(site: Site, results: _Results) -> Iterator[Callable[[], None]]:
    """A question for each model that comes from a hub."""
    uses: dict[str, tuple[Model, Uses, Mapping[str, str]]] = {}
    for host in site.values():
        addresses = {
            "stack_huggingface_url": str(host.settings.stack.huggingface_url),
            "stack_ollama_library_url": str(host.settings.stack.ollama_library_url),
        }
        for model in host.settings.models:
            if isinstance(model.origin, HubSource | OllamaSource):
                key = json.dumps([model.source, model.digest, *model.include])
                uses.setdefault(key, (model, [], addresses))[1].append((host.name, model.service))
    for model, used, hubs in uses.values():
        yield partial(_model, model, used, hubs, results)


def _model(model: Model, uses: Uses, addresses: Mapping[str, str], results: _Results) -> None:
    origin = model.origin
    assert isinstance(origin, HubSource | OllamaSource)
    try:
        with Hubs(addresses=addresses) as hubs:
            pins = hubs.pins(origin, None, model.include)
    except HubError as error:
        results.unreachable[model.source] = str(error)
        return
    own = {file.path: file.sha256 for file in model.files} or {"": model.digest}
    now = {file["path"]: file["sha256"] for file in pins.get("files", ())} or {"": pins["sha256"]}
    if own == now:  # another commit may have changed a text only
        return
    changed = sorted(path for path in {*own, *now} if own.get(path) != now.get(path) and path)
    some = f": {', '.join(changed[:3])}" if changed else ""
    revision = str(pins.get("revision") or next(iter(now.values())))[:12]
    results.outdated.append(
        Outdated(
            kind="model",
            name=f"{model.name} ({model.source})",
            hosts=tuple(dict.fromkeys(host for host, _ in uses)),
            current=(model.revision or model.digest)[:12],
            latest=f"{revision}{some}",
            update="llmhost model lock INVENTORY --update",
            changes=stack_changes(uses),
        )
    )


def _hosts(path: str, site: Site, results: _Results) -> None:
    patterns = [each for several in PACKAGES.values() for each in several]
    command = script("outdated/packages.sh", *patterns)
    with connected(path, [*site], strict=False) as (state, messages):
        commands = dict.fromkeys(state.active_hosts, command)
        answers = run_on_each(commands, _ANSWER_SECONDS, packages_of)
    now = datetime.now(UTC)
    for name, host in site.items():
        answer = answers.get(name)
        if answer is None or answer.error:
            why = answer.error if answer else messages.about(name)[-1]
            results.unreachable[name] = f"could not be read: {why}"
            continue
        found = packages_of(answer.output)
        results.outdated += host_findings(host, found, now.date())
        results.notes.append(lists_note(name, found, now))


def _llmhost(results: _Results, hosts: Sequence[str]) -> None:
    """Releases of llmhost, as pip finds them: with the site's index, proxy and certificates."""
    command = [sys.executable, "-m", "pip", "index", "versions", "llmhost"]
    options = ["--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "10"]
    ran = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    versions = re.search(r"^Available versions: (.*)$", ran.stdout, re.MULTILINE)
    if "No matching distribution" in ran.stderr and "Retrying" not in ran.stderr:
        results.notes.append("the index of Python packages has no release of llmhost")
        return
    if ran.returncode or not versions:
        lines = [line for line in ran.stderr.splitlines() if line.startswith("ERROR: ")]
        why = lines[-1].removeprefix("ERROR: ") if lines else "pip printed no version"
        results.unreachable["the index of Python packages"] = f"has no answer: {why}"
        return
    current = str(toolkit()["version"])
    if latest := newer_release(current, versions[1].split(", ")):
        update = "install it on the controller, read CHANGELOG.md, then llmhost plan"
        changes = tuple(f"{host}: what llmhost plan shows then" for host in hosts)
        found = Outdated("llmhost", "llmhost", (), current, latest, update, changes)
        results.outdated.append(found)


def _print(found: OutdatedReport) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for each in found.outdated:
        _print_one(console, each)
    if not found.outdated and not found.unreachable:
        console.print("nothing is outdated")
    for note in found.notes:
        console.print(f"[yellow]{escape(note)}[/yellow]")


def _print_one(console: Console, each: Outdated) -> None:
    name, versions = titled(each)
    console.print(f"[bold]{escape(name)}[/bold]: {escape(versions)}")
    if each.security:
        console.print(f"  [red]! {escape(each.security)}[/red]")
    console.print(escape(f"  update: {each.update}"))
    for change in each.changes:
        console.print(escape(f"  then: {change}"))
