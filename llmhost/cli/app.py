"""The commands of `llmhost`. Each module is imported when its command runs; `--help` stays fast."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from llmhost.cli.errors import ERROR
from llmhost.cli.wording import mistake, readable


@dataclass(frozen=True)
class Place:
    """The location of a command: `module:attribute` in llmhost.cli, a function or a Typer
    application with subcommands. `help` is the first sentence of its help text. Commands with
    `pyinfra` need gevent's sockets and threads instead of Python's own."""

    where: str
    help: str
    pyinfra: bool = True


PLACES = {
    "init": Place(
        "init:init", "Write a site: an inventory with one server, and a deploy.py.", pyinfra=False
    ),
    "doctor": Place(
        "doctor:doctor",
        "Show what this machine, the site and the way to its hosts lack, and how to fix it.",
        pyinfra=False,
    ),
    "plan": Place("plan:plan", "Show what a deploy would change, and why. Changes nothing."),
    "deploy": Place(
        "deploy:deploy",
        "Bring the hosts to the declared state: runs `pyinfra INVENTORY deploy.py`.",
        pyinfra=False,
    ),
    "verify": Place("verify:verify", "Check that each server does what the inventory declares."),
    "status": Place(
        "status:status",
        "Show the state of each host: services, GPUs, requests, disks, expiries, last deploy.",
    ),
    "logs": Place(
        "logs:logs", "Show the log of a service, or of the gateway, of several hosts at once."
    ),
    "usage": Place(
        "usage:usage",
        "Show who uses the gateway: requests, errors, tokens and bytes by client, model, day.",
    ),
    "gpus": Place(
        "gpus:gpus", "Show what each GPU did over time: use, memory, temperature, power."
    ),
    "page": Place(
        "page:write_page",
        "Write status, usage, plan and checks of the hosts as one HTML page.",
    ),
    "ssh": Place("shell:ssh", "Open a shell on a host, or run a command there."),
    "exec": Place("shell:execute", "Run a command in the container of a service."),
    "history": Place(
        "history:show_history",
        "Show who deployed to a host, when, from which revision, and what changed.",
    ),
    "unlock": Place("history:unlock", "Unlock a host that a hanging deploy has locked."),
    "rollback": Place(
        "rollback:return_to",
        "Roll back the stack and the gateway to one of the last three deploys.",
    ),
    "prune": Place(
        "rollback:prune",
        "Remove llmhost images that no kept deploy, container or inventory needs.",
    ),
    "backup": Place(
        "backup:backup", "Back up the data of the services to the repository in backup_repository."
    ),
    "restore": Place("backup:restore", "Replace the data of the services with that of a backup."),
    "sbom": Place(
        "sbom:app",
        "Write what runs on each host as signed CycloneDX documents; compare two of them.",
    ),
    "outdated": Place(
        "outdated:outdated",
        "Show newer versions than the pins, what an update changes, and known vulnerabilities.",
    ),
    "vram": Place(
        "vram:vram", "Show how much GPU memory each model needs and whether all models fit."
    ),
    "nvidia": Place(
        "nvidia:nvidia",
        "Show which NVIDIA driver each release and GPU gets, and how old the figures are.",
        pyinfra=False,
    ),
    "latency": Place(
        "latency:latency",
        "Measure how fast the gateway answers each application server, for each role.",
    ),
    "bench": Place(
        "bench:bench", "Measure throughput and latency of a gateway at rising concurrency."
    ),
    "compare": Place(
        "compare:compare", "Ask two models the same questions, and show their answers side by side."
    ),
    "promote": Place(
        "compare:promote",
        "Exchange the names of a model and of a role's model in the inventory.",
        pyinfra=False,
    ),
    "drain": Place(
        "drain:drain", "Stop sending requests to a server and wait for open requests to finish."
    ),
    "roll": Place(
        "roll:roll", "Deploy batch by batch: drain, deploy, verify, and return to the pool."
    ),
    "stop": Place(
        "service:stop_service",
        "Stop a service until it is started again: deploys and reboots leave it stopped.",
    ),
    "start": Place(
        "service:start_service", "Start a stopped service and wait until it is healthy."
    ),
    "restart": Place("service:restart_service", "Restart a service and wait until it is healthy."),
    "bundle": Place("bundle:app", "Deploy to hosts without a network, from one signed file."),
    "key": Place("key:app", "Create, import, rotate, revoke and list API keys.", pyinfra=False),
    "model": Place(
        "model_store:app", "List models, pin their sources, store their weights, and make models."
    ),
    "train": Place(
        "train:train",
        "Train a LoRA adapter on a host, judge it, and write it to models.trained here.",
    ),
    "docs": Place(
        "docs:docs", "Print a page of the documentation, or the list of pages.", pyinfra=False
    ),
    "tls": Place(
        "tls:app", "Print the certificate of the site's certificate authority.", pyinfra=False
    ),
}


def command(name: str) -> Any:
    """Import a command."""
    module, _, attribute = PLACES[name].where.partition(":")
    found = getattr(import_module(f"llmhost.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        made: Any = typer.main.get_group(found)
    else:
        alone = typer.Typer(add_completion=False)
        alone.command(context_settings=getattr(found, "context_settings", None))(found)
        made = typer.main.get_command(alone)
    made.name = name
    return readable(made)


class _Unread(TyperCommand):
    """A command whose module is not imported yet; only its name and help sentence are known."""

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

    def invoke(self, ctx: Any) -> Any:
        """Run the command; its own groups and options are parsed here, too."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = mistake(error) or error.message
            raise


# Typer exits with 2 for a mistyped command; here 2 means that there is something to do.
_usage_error: Any = typer.BadParameter.__base__
_usage_error.exit_code = ERROR

app = typer.Typer(
    name="llmhost",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    from llmhost.version import toolkit  # slow to import

    found = toolkit()
    revision = f" ({found['revision']})" if found["revision"] else ""
    modified = ", with changes" if found["modified"] else ""
    typer.echo(f"llmhost {found['version']}{revision}{modified}")
    raise typer.Exit


@app.callback()
def llmhost(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version"),
    ] = False,
) -> None:
    """Plan, deploy, verify and manage LLM servers."""
    del version
