"""`llmhost init`: create a site directory for a first server."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from llmhost.cli import site_answers
from llmhost.cli.errors import stop
from llmhost.cli.hub import HubError, Hubs
from llmhost.cli.site_answers import Answers, Questions
from llmhost.gateway.keys import digest, new_key
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.profiles import KEY as PROFILE
from llmhost.inventory.profiles import PROFILES
from llmhost.inventory.reader import LOCK_KEY, read_settings
from llmhost.models.lock import write_lock
from llmhost.options.model_source import HubSource, OllamaSource, parse_source
from llmhost.options.stack import Stack
from llmhost.secret import create_secret
from llmhost.services import catalogue
from llmhost.system.whole_file import write_file
from llmhost.template import render

INVENTORY = "inventory/site.py"
_FILES = {
    INVENTORY: "site/site.py.j2",
    "config.py": "site/config.py.j2",
    "deploy.py": "site/deploy.py.j2",
    ".gitignore": "site/gitignore.j2",
    "README.md": "site/README.md.j2",
}
_LOCK = Stack().models_lock
_HUB_SECONDS = 5


def init(
    directory: Annotated[Path, typer.Argument(help="New or empty directory")],
    host: Annotated[str | None, typer.Option(help="Address or SSH host name of the server")] = None,
    user: Annotated[
        str | None, typer.Option(help="User to log in as: root or a user with sudo")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help=f"Services and models: {', '.join(PROFILES)}")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Network that may connect, such as 10.0.0.0/8; repeatable"),
    ] = None,
    time_zone: Annotated[str | None, typer.Option(help="Such as Asia/Seoul")] = None,
    client: Annotated[str | None, typer.Option(help="Name of the first API client")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask; accept all suggested values")
    ] = False,
) -> None:
    """Write a site: an inventory with one server, and a deploy.py.

    Also writes a README and a .gitignore. Asks for values that are not given as options, and pins
    the models if their hub answers. Creates the secrets of the profile's services where they are
    missing, and an API key for the first client: it is printed once, as the only line on standard
    output.
    """
    _check_directory(directory)
    answers = _answers(Questions(accept=yes), host, user, profile, allow, time_zone, client)
    key = new_key()
    pins, unpinned = _pins(answers.profile)
    _write(directory, _texts(answers, digest(key), pins))
    _create_secrets(answers.profile)
    _report(directory, answers, key, unpinned)


def _check_directory(directory: Path) -> None:
    """Stop if files would be overwritten or the directory is not writable."""
    if found := [name for name in (*_FILES, _LOCK) if os.path.lexists(directory / name)]:
        stop(f"{directory} already contains {', '.join(found)}: choose another directory")
    parent = directory.absolute()
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        stop(f"{parent} is not a directory: choose another one")
    if not os.access(parent, os.W_OK | os.X_OK):
        stop(f"{parent} is not writable: choose another directory, or change its permissions")


def _answers(
    questions: Questions,
    host: str | None,
    user: str | None,
    profile: str | None,
    allow: Sequence[str] | None,
    time_zone: str | None,
    client: str | None,
) -> Answers:
    ask = questions.answer
    server = ask("--host", host, "Address or SSH host name of the server", site_answers.host)
    login = ask("--user", user, "User to log in as", site_answers.user, "root")
    if profile is None and questions.asks:
        _say("Profiles and their services:", *site_answers.describe_profiles())
    chosen = ask("--profile", profile, "Profile", site_answers.profile, "ollama")
    networks = ask(
        "--allow",
        ", ".join(allow) if allow else None,
        "Networks that may connect, such as 192.168.0.0/24",
        site_answers.networks,
        site_answers.suggested_networks(server),
    )
    zone = site_answers.local_time_zone()
    zone = ask("--time-zone", time_zone, "Time zone", site_answers.time_zone, zone)
    first = ask("--client", client, "Name of the first API client", site_answers.client, "main-app")
    return Answers(server, login, chosen, site_answers.split(networks), zone, first)


def _pins(profile: str) -> tuple[dict[str, Any], str]:
    """Pins of the profile's models, and the reason if some are missing."""
    entries: dict[str, Any] = {}
    with Hubs(seconds=_HUB_SECONDS) as hubs:
        for source in dict.fromkeys(m["source"] for m in PROFILES[profile].defaults["models"]):
            origin = parse_source(source)
            assert isinstance(origin, HubSource | OllamaSource)
            _say(f"Pinning {source}")
            try:
                entries[source] = hubs.pins(origin, None)
            except HubError as error:
                return entries, f"{source} {error}"
    return entries, ""


def _texts(answers: Answers, sha256: str, pins: Mapping[str, Any]) -> dict[str, str]:
    """The site's files by name."""
    values = {**asdict(answers), "server": answers.name, "sha256": sha256}
    texts = {name: render(template, **values) for name, template in _FILES.items()}
    return {**texts, _LOCK: write_lock(pins)} if pins else texts


def _write(directory: Path, texts: Mapping[str, str]) -> None:
    try:
        for name, text in texts.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, text)
    except OSError as error:
        stop(f"{error.filename or directory}: {error.strerror}")
    _say("", *(f"wrote {directory / name}" for name in texts))


def _create_secrets(profile: str) -> None:
    """Create the files that the services' secrets are in by default, such as passwords."""
    for service in PROFILES[profile].services:
        for reference in catalogue()[service].options.model_validate({}).secret_variables.values():
            place = reference.partition(":")[2]
            try:
                if create_secret(reference):
                    _say(f"wrote {place}, a secret of {service}: back it up")
            except OSError as error:
                stop(f"{place}: {error.strerror}")


def _report(directory: Path, answers: Answers, key: str, unpinned: str) -> None:
    """Print the key, what is left to do before the first deploy, and the next commands."""
    _say("", f"The API key of {answers.client}. It is shown once and stored nowhere:")
    typer.echo(key)
    if unpinned:
        _say("", f"Models that are not pinned yet: {unpinned}.")
        _say(
            "A deploy needs the pins: run `llmhost model lock` (below) where the hub is reachable."
        )
    if problems := _problems(directory, answers, pinned=not unpinned):
        _say("", "To do before the first deploy:", *(f"  {problem}" for problem in problems))
    commands = ["model lock"] if unpinned else []
    commands += ["plan", "deploy", "verify"]
    _say("", "Next:", f"  cd {shlex.quote(str(directory))}")
    _say(*(f"  llmhost {command} {INVENTORY}" for command in commands))


def _problems(directory: Path, answers: Answers, *, pinned: bool) -> list[str]:
    """What the operator must add."""
    data = {
        PROFILE: answers.profile,
        LOCK_KEY: str(directory / _LOCK),
        "api_clients": [{"name": answers.client, "sha256": "a" * 64}],
    }
    try:
        read_settings(data)
    except SettingsError as error:
        found = [each for each in error.problems if pinned or not each.key.startswith("models")]
        return [problem.sentence(answers.name) for problem in found]
    return []


def _say(*lines: str) -> None:
    """Print to standard error, so that standard output holds only the key."""
    for line in lines:
        typer.echo(line, err=True)
