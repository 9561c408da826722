"""The gateways in front of a host that trains: they drain it, and return it when that has ended.

The drain is that of `llmhost drain`; what returns the server is a unit of each gateway
(docs/decisions/0164).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from llmhost.cli.drain import drain_call
from llmhost.cli.errors import stop
from llmhost.cli.inventory_file import load_inventory
from llmhost.cli.locked_operations import Call, run_locked
from llmhost.cli.roll_plan import pools_of
from llmhost.cli.session import checked_site, connected
from llmhost.gateway.pool import Drained
from llmhost.gateway.returner import returner
from llmhost.history.run_record import LOCK
from llmhost.inventory.site import SiteHost, head_of
from llmhost.settings import Settings

PATIENCE_SECONDS = 720
"""From the drain until services stop: files/training/host.py waits 600 s for the host's lock."""

_console = Console(soft_wrap=True, highlight=False, stderr=True)


@dataclass(frozen=True)
class Gateways:
    """Those of an inventory that pass requests on to `services` of a host. With `interrupt`, a
    gateway that cannot drain it does not prevent the training."""

    inventory: str
    host: SiteHost
    services: Sequence[str] = ()
    interrupt: bool = False

    @contextmanager
    def drained(self) -> Iterator[None]:
        """Drain the host before the block, which begins the training; return it if the block
        fails. Stops if a gateway refuses."""
        places = self._places() if self.services else {}
        done: list[str] = []
        try:
            done, why = self._change(places, undo=False)
            if why and not self.interrupt:
                stop(*why, "nothing was stopped; to train nevertheless, add --interrupt")
            yield
        except BaseException:
            self._change({name: places[name] for name in done}, undo=True)
            raise

    def _places(self) -> dict[str, tuple[Settings, str]]:
        """Settings of each gateway, and the host's name there."""
        loaded = load_inventory(self.inventory)
        head = head_of(self.host.name, (each.data.dict() for each in loaded))
        wanted = {self.host.name, head}
        hosts = [
            each
            for each in loaded
            if each.name in wanted or "gateway_upstreams" in each.data.dict()
        ]
        site = checked_site(loaded, hosts)
        found = {
            name: (site[name].settings, server)
            for name, server in pools_of(site).get(head, {}).items()
        }
        found = {
            name: (settings, server)
            for name, (settings, server) in found.items()
            if {*settings.gateway.upstream_services} & {*self.services}
        }
        if found and head != self.host.name:
            # The head, which gateways ask, has no mark of what this member stops.
            if not self.interrupt:
                stop(
                    f"{self.host.name} computes for {head}, whose gateways do not see when it"
                    " trains: train there, or add --interrupt; nothing was stopped"
                )
            return {}
        return found

    def _change(
        self, places: Mapping[str, tuple[Settings, str]], *, undo: bool
    ) -> tuple[list[str], list[str]]:
        """The gateways that have done it, and why the others have not."""
        if not places:
            return [], []
        with connected(self.inventory, list(places)) as (state, messages):
            hosts = sorted(state.active_hosts, key=lambda each: each.name)
            calls = {host: self._call(*places[host.name], undo=undo) for host in hosts}
            failed = run_locked(state, calls)
            done = [host.name for host in hosts if host.name not in failed]
            why = [f"{name}: {each}" for name, reasons in failed.items() for each in reasons]
            for name in sorted(places.keys() - failed.keys() - {*done}):
                why += [f"{name}: {sentence}" for sentence in messages.about(name)]
        for name in done:
            verb = "sends requests to" if undo else "sends no new requests to"
            _console.print(f"{escape(name)} {verb} {escape(places[name][1])}")
        for sentence in why if undo or self.interrupt else []:
            _console.print(f"[yellow]{escape(sentence)}[/yellow]")
        return done, why

    def _call(self, settings: Settings, name: str, *, undo: bool) -> Call:
        [server] = [each for each in settings.gateway.upstreams if each.name == name]
        asked = [each for each in self.services if each in settings.gateway.upstream_services]
        program = returner(settings, server, asked, patience=PATIENCE_SECONDS, lock=LOCK)
        by = Drained.BY_TRAINING
        return drain_call(settings, [name], undo=undo, by=by, returner=program)
