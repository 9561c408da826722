"""All commands under one name. Each is imported when it runs, so that `--help` answers at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class Place:
    """Where a command is: `module:attribute` in llmhost.cli, a function or an application with
    commands of its own. `help` is the first sentence of its help text. Commands with `pyinfra`
    need its network library, gevent, in place of Python's own."""

    where: str
    help: str
    pyinfra: bool = True


PLACES = {
    "init": Place(
        "init:init", "Write a site: an inventory with one server, and a deploy.py.", pyinfra=False
    ),
    "plan": Place("plan:plan", "Show what a deploy would change, and why. Changes nothing."),
    "deploy": Place(
        "deploy:deploy",
        "Make the hosts what the inventory declares: runs `pyinfra INVENTORY deploy.py`.",
        pyinfra=False,
    ),
    "verify": Place("verify:verify", "Check that each server does what the inventory declares."),
    "history": Place(
        "history:show_history",
        "Show who deployed a host, when, from which revision, and what changed.",
    ),
    "unlock": Place("history:unlock", "Unlock the host of a deploy that hangs."),
    "rollback": Place(
        "rollback:return_to", "Return the stack and the gateway to one of the last three deploys."
    ),
    "prune": Place(
        "rollback:prune",
        "Remove llmhost's images that no kept deploy, container or inventory needs.",
    ),
    "vram": Place(
        "vram:vram", "Show how much GPU memory each model needs, and whether they all fit."
    ),
    "nvidia": Place(
        "nvidia:nvidia",
        "Show which NVIDIA driver each release and GPU gets, and how old the figures are.",
        pyinfra=False,
    ),
    "latency": Place(
        "latency:latency", "Measure how fast the gateway answers each application server."
    ),
    "drain": Place(
        "drain:drain", "Stop sending requests to a server, and wait for those in progress."
    ),
    "bundle": Place("bundle:app", "Deploy to hosts without a network, from one signed file."),
    "key": Place("key:app", "Create, rotate, revoke and list API keys.", pyinfra=False),
    "model": Place("model:app", "List models, and pin what their sources refer to."),
    "tls": Place(
        "tls:app", "Print the certificate of the site's certificate authority.", pyinfra=False
    ),
}


def command(name: str) -> Any:
    """The command itself, imported now."""
    module, _, attribute = PLACES[name].where.partition(":")
    found = getattr(import_module(f"llmhost.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        made: Any = typer.main.get_group(found)
    else:
        alone = typer.Typer(add_completion=False)
        alone.command(context_settings=getattr(found, "context_settings", None))(found)
        made = typer.main.get_command(alone)
    made.name = name
    return made


class _Unread(TyperCommand):
    """A command of which only the name and one sentence are known so far."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        assert self.name
        return command(self.name).make_context(*args, **kwargs)


class _Commands(Mapping[str, TyperCommand]):
    def __getitem__(self, name: str) -> TyperCommand:
        return _Unread(name, help=PLACES[name].help)

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)


class _Group(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()  # type: ignore[assignment]  # it is only read


app = typer.Typer(
    name="llmhost",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def llmhost() -> None:
    """Plan, verify and look after LLM servers that `pyinfra INVENTORY deploy.py` provisions."""
