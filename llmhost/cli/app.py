"""All commands under one name, each imported when it is called: together they take a second."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

# Command, and where it is: a function, or an application with commands of its own.
_PLACES = {
    "init": "init:init",
    "plan": "plan:plan",
    "deploy": "deploy:deploy",
    "verify": "verify:verify",
    "history": "history:show_history",
    "unlock": "history:unlock",
    "rollback": "rollback:return_to",
    "prune": "rollback:prune",
    "vram": "vram:vram",
    "latency": "latency:latency",
    "drain": "drain:drain",
    "bundle": "bundle:app",
    "key": "key:app",
    "model": "model:app",
    "tls": "tls:app",
}


class _Commands(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        module, _, attribute = _PLACES[name].partition(":")
        found = getattr(import_module(f"llmhost.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            command: Any = typer.main.get_group(found)
        else:
            alone = typer.Typer(add_completion=False)
            alone.command(context_settings=getattr(found, "context_settings", None))(found)
            command = typer.main.get_command(alone)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


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
