"""`llmhost rollback` and `llmhost prune`: return to an earlier deploy; remove unused images."""

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pyinfra.api import Host, State
from pyinfra.context import ctx_host
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llmhost.cli.arguments import HostName, Inventory
from llmhost.cli.errors import stop
from llmhost.cli.locked_operations import Call, run_locked
from llmhost.cli.session import connected, group_members, only_host
from llmhost.history.prune import Superfluous, superfluous
from llmhost.history.rollback import (
    GROUP,
    DeployPaths,
    Kept,
    KeptState,
    chosen,
    missing_images,
    places_of,
    steps_to,
    title_of,
)
from llmhost.operations import rollback
from llmhost.operations.inventory import site_host
from llmhost.operations.pyinfra_patches import patch_run
from llmhost.settings import Settings
from llmhost.stack.project import service_images
from llmhost.stack.training import all_images
from llmhost.units import gib

_console = Console(soft_wrap=True, highlight=False)


def return_to(
    inventory: Inventory,
    host: HostName,
    steps: Annotated[
        int, typer.Argument(metavar="N", min=1, help="How many deploys to go back")
    ] = 1,
    show: Annotated[bool, typer.Option("--list", help="Only list the kept deploys")] = False,
) -> None:
    """Roll back the stack and the gateway to one of the last three deploys.

    After a deploy that failed while it changed them, the first of these is the last complete one.
    Needs the images of that deploy, which must still be on the host. Packages, firewall and
    everything else stay as they are. So does the inventory: `llmhost plan` shows how it differs,
    and the next deploy applies it again. The other members of an engine group return, too, to
    their newest deploy with the same engine and options of the group.
    """
    host, group = group_members(inventory, host)
    others = [name for name in group if name != host and not show]
    with _sessions(inventory, [host, *others]) as (session, *members):
        found = session.kept()
        if show:
            _console.print(_listed(host, found))
            return
        kept = chosen(found, steps)
        if isinstance(kept, str):
            stop(f"{host}: {kept}")
        shared = kept.record.get(GROUP)
        todo = [(session, steps, kept), *_with_engine(session.engine_of(kept), shared, members)]
        sessions, numbers = [each for each, _, _ in todo], [number for _, number, _ in todo]
        _run(sessions, rollback.returned, numbers, title_of(kept))
    for each, _, deploy in todo:
        _console.print(
            f"{escape(each.host.name)}: stack and gateway are back at {deploy.time} (revision"
            f" {deploy.revision})"
        )
    _console.print(
        "The inventory is unchanged, and the next deploy applies it again. To see the difference,"
        f" run llmhost plan {escape(inventory)}"
    )


def prune(
    inventory: Inventory,
    host: HostName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation")] = False,
) -> None:
    """Remove llmhost images that no kept deploy, container or inventory needs.

    Lists them first and asks for confirmation. Superseded engines and the builder's cache of
    removed images are freed too. Images that llmhost neither built nor pulled, and volumes, stay.
    """
    with _sessions(inventory, [host]) as (session,):
        todo = superfluous(session.kept(), session.declared)
        if not todo.images and not todo.uploads:
            _console.print(f"{escape(host)}: nothing to remove")
            return
        _console.print(_freed(host, todo))
        if not yes and not sys.stdin.isatty():
            _console.print("Nothing was removed: there is no terminal to confirm on; add --yes")
            return
        if not yes and not typer.confirm("Remove them?"):
            _console.print("Nothing was removed.")
            return
        _run([session], rollback.pruned, [session.declared], "Remove unused images")
    _console.print(f"{escape(host)}: removed")


@dataclass(frozen=True)
class _Session:
    """A connection to one host, with its declared settings."""

    state: State
    host: Host
    settings: Settings

    @property
    def places(self) -> DeployPaths:
        return places_of(self.settings)

    @property
    def declared(self) -> list[str]:
        """References of the images that the inventory declares."""
        images = all_images(self.settings)
        models = [model.reference for image in images for model in image.models]
        return [*(image.reference for image in images), *models]

    def kept(self) -> KeptState:
        with ctx_host.use(self.host):
            return rollback.read_kept(self.places, self.settings.stack.uploads)

    def engine_of(self, kept: Kept) -> frozenset[str]:
        """References of the images that a deploy ran in the host's engine group."""
        images = service_images(self.settings)
        names = {
            each.reference.rpartition(":")[0]
            for each in images
            if each.service in self.settings.group_services
        }
        return frozenset(each for each in kept.images if each.rpartition(":")[0] in names)


def _with_engine(
    engine: Collection[str], group: object, members: Sequence[_Session]
) -> Iterator[tuple[_Session, int, Kept]]:
    """The members that must return to another deploy, because they wait for one engine with the
    same digest of the group; stops if one cannot."""
    for member in members:
        found = member.kept()
        steps = steps_to(engine, found, group)
        if isinstance(steps, str):
            stop(
                f"{member.host.name}: {steps}, and members of an engine group need the same engine;"
                " nothing was changed"
            )
        if steps:
            yield member, steps, found.earlier[steps - 1]


def _run(
    sessions: Sequence[_Session], operation: Any, arguments: Sequence[object], title: str
) -> None:
    """Run an operation on all these hosts at the same time, while they are locked, each with its
    argument; stops if it fails."""
    calls = {
        each.host: Call(
            operation,
            title,
            (argument,),
            {"places": each.places, "uploads": each.settings.stack.uploads},
        )
        for each, argument in zip(sessions, arguments, strict=True)
    }
    if failed := run_locked(sessions[0].state, calls):
        stop(*(f"{name}: {each}" for name, why in failed.items() for each in why))


@contextmanager
def _sessions(inventory: str, names: Sequence[str]) -> Iterator[list[_Session]]:
    """Connections to these hosts, of which the first is the operator's; stops without one."""
    with connected(inventory, names) as (state, messages):
        if len(names) == 1:
            hosts = [only_host(state, messages, names[0])]
        else:
            hosts = [state.inventory.get_host(name) for name in names]
        lost = [each.name for each in hosts if each not in state.active_hosts]
        if lost:
            stop(*(f"{name}: {each}" for name in lost for each in messages.about(name)))
        for each in hosts:
            patch_run(state, each)
        yield [_Session(state, each, site_host(each).settings) for each in hosts]


def _listed(host: str, found: KeptState) -> Table | str:
    if not found.earlier:
        return f"{escape(host)}: no earlier deploy is kept"
    table = Table(title=host, title_justify="left", title_style="bold", expand=False)
    for column in ("N", "deployed", "revision", "images"):
        table.add_column(column, overflow="fold")
    for number, kept in enumerate(found.earlier, start=1):
        table.add_row(str(number), escape(kept.time), escape(kept.revision), _images(kept, found))
    return table


def _images(kept: Kept, found: KeptState) -> str:
    gone = missing_images(kept, found.images)
    names = (f"{name} [red](gone)[/red]" if name in gone else name for name in kept.images)
    return "\n".join(names) or "none"


def _freed(host: str, todo: Superfluous) -> Table:
    title = f"{host}: about {gib(todo.freed_bytes)} can be freed"
    table = Table(title=title, title_justify="left", title_style="bold", expand=False)
    for column in ("what", "size"):
        table.add_column(column, overflow="fold", justify="right" if column == "size" else "left")
    for image in todo.images:
        for name in image.references:
            table.add_row(escape(name), gib(image.size_bytes))
    for upload in todo.uploads:
        table.add_row(f"{escape(upload)}, left over from an interrupted run", "")
    return table
