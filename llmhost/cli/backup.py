"""`llmhost backup` and `llmhost restore`: the data of the services, in a repository of restic."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llmhost.backup import (
    SCHEMA,
    BackupListReport,
    BackupReport,
    RestoreReport,
    backup_made,
    backups_kept,
    command,
    containers,
    restored,
    secrets,
    without_backup,
)
from llmhost.cli.arguments import HostName, Hosts, Inventory
from llmhost.cli.errors import ERROR, stop
from llmhost.cli.remote import RemoteError, remote
from llmhost.cli.session import site_hosts
from llmhost.inventory.site import SiteHost
from llmhost.inventory.site_reader import no_rules
from llmhost.operations.journal import new_record
from llmhost.secret import create_secret
from llmhost.units import gib

Json = Annotated[bool, typer.Option("--json", help="Print JSON: an object by host")]
_console = Console(soft_wrap=True, highlight=False)


def backup(
    inventory: Inventory,
    hosts: Hosts = None,
    create: Annotated[
        bool, typer.Option("--create", help="Create the repository, and its password if missing")
    ] = False,
    only_list: Annotated[
        bool, typer.Option("--list", help="Show the backups in the repository instead")
    ] = False,
    as_json: Json = False,
) -> None:
    """Back up the data of the services to the repository in backup_repository.

    The services work meanwhile. At the end they pause, while what changed is read; requests wait.
    Then the repository is checked, and backups older than backup_keep_days are removed. Hosts are
    backed up one after another. Exit status: 0, or 1 if a host could not be backed up.
    """
    found = _hosts(inventory, hosts or [])
    if create:
        _create_passwords(found)
    do = "listed" if only_list else "backup"
    results = {host.name: _ask(host, command(host, do, _owner(), create=create)) for host in found}
    done = {name: each for name, each in results.items() if isinstance(each, dict)}
    failed = {name: each for name, each in results.items() if isinstance(each, str)}
    if only_list:
        kept = {name: backups_kept(each) for name, each in done.items()}
        _show_list(BackupListReport(SCHEMA, kept, failed), as_json=as_json)
    else:
        made = {name: backup_made(each) for name, each in done.items()}
        _show(BackupReport(SCHEMA, made, failed), as_json=as_json)
    _end(failed)


def _show(report: BackupReport, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(report)))
        return
    for name, each in report.hosts.items():
        size = f"{each.files} files, {gib(each.bytes)}, in {', '.join(sorted(each.volumes))}"
        pause = f"services paused for {each.paused_seconds} s"
        _console.print(escape(f"{name}: backup {each.snapshot}: {size}; {pause}"))


def _show_list(report: BackupListReport, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(report)))
        return
    table = Table("backup", "host", "time", "volumes", box=None)
    kept = {each for several in report.hosts.values() for each in several}
    for each in sorted(kept, key=lambda each: (each.time, each.host)):
        table.add_row(each.snapshot, each.host, each.time, ", ".join(each.volumes))
    _console.print(table if kept else "no backups")


def restore(
    inventory: Inventory,
    host: HostName,
    snapshot: Annotated[
        str, typer.Option(help="Backup, as llmhost backup --list shows it; default: the latest")
    ] = "",
    other: Annotated[
        str, typer.Option("--from", metavar="NAME", help="Host whose backup to restore")
    ] = "",
    services: Annotated[
        list[str] | None, typer.Option("--service", help="Only this service; repeatable")
    ] = None,
    drill: Annotated[
        bool, typer.Option("--drill", help="Only prove that the backup can be restored")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Replace the data without a question")] = False,
    as_json: Json = False,
) -> None:
    """Replace the data of the services with that of a backup.

    The data is restored next to the current data, compared with the repository, then exchanged,
    and the services restart. If one becomes unhealthy, its former data is restored. Whatever
    interrupts it, a service has either its former data or all of the restored data. --drill stops
    before the exchange and changes nothing. Exit status: 0 or 1.
    """
    found = _hosts(inventory, [host])
    if len(found) > 1:
        stop(f"{host} matches {len(found)} hosts; give one of {', '.join(h.name for h in found)}")
    [target] = found
    volumes = containers(target.settings, tuple(services or ()))
    if not volumes:
        stop(f"{' and '.join(services or ())} keeps no data on {target.name}")
    if not (drill or yes):
        what = f"Replace {', '.join(volumes)} on {target.name}?"
        typer.confirm(what, abort=True, err=True)
    choice = {"snapshot": snapshot, "from": other or target.name, "drill": drill}
    asked = command(target, "restore", _owner(), volumes=volumes, **choice)
    result = _ask(target, asked)
    if isinstance(result, str):
        _end({target.name: result})
        return
    report = restored(target.name, result, drill=drill)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        _print_restored(report)


def _print_restored(report: RestoreReport) -> None:
    verb = "can be restored" if report.drill else "is restored"
    _console.print(escape(f"{report.host}: backup {report.snapshot} of {report.time} {verb}"))
    for volume, size in report.volumes.items():
        _console.print(escape(f"  {volume}: {size.files} files, {gib(size.bytes)}, verified"))


def _hosts(path: str, limit: list[str]) -> list[SiteHost]:
    """The hosts within the limit that have backups; stops if there is none, and names the others
    that were asked for."""
    hosts = site_hosts(path, limit, no_rules)
    reasons = {host.name: why for host in hosts if (why := without_backup(host))}
    if len(reasons) == len(hosts):
        stop(*(f"{name}: {why}; see llmhost docs operations" for name, why in reasons.items()))
    for name, why in reasons.items():
        typer.echo(f"{name}: no backup: {why}", err=True)
    return [host for host in hosts if host.name not in reasons]


def _create_passwords(hosts: list[SiteHost]) -> None:
    for reference in {host.settings.backup.password for host in hosts}:
        try:
            created = create_secret(reference)
        except OSError as error:
            stop(f"backup_password: {reference.partition(':')[2]}: {error.strerror}")
        if created:
            place = reference.partition(":")[2]
            typer.echo(f"Created {place}. Nobody can read a backup without it: copy it.", err=True)


def _ask(host: SiteHost, asked: str) -> dict[str, Any] | str:
    """What a host answers, or why it does not."""
    try:
        with remote(host.name, host.data) as machine:
            found: dict[str, Any] = json.loads(machine.run(asked, secrets(host.settings)))
            return found
    except (RemoteError, ValueError) as error:
        return str(error).removeprefix(f"{host.name}: ")


def _owner() -> str:
    return new_record().line


def _end(failed: Mapping[str, str]) -> None:
    for name, why in failed.items():
        typer.echo(f"{name}: {why}", err=True)
    raise typer.Exit(ERROR if failed else 0)
