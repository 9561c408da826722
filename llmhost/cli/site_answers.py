"""The questions of `llmhost init`. Answers are checked with the inventory's own rules."""

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import typer

from llmhost.cli.errors import stop
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.profiles import KEY as PROFILE
from llmhost.inventory.profiles import PROFILES
from llmhost.inventory.reader import read_settings

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Answers:
    """The first server of a site, as its inventory declares it."""

    host: str
    user: str
    profile: str
    allow: tuple[str, ...]
    time_zone: str
    client: str

    @property
    def name(self) -> str:
        """The server's name in the inventory."""
        return "llm-server" if _address(self.host) else self.host


class Questions:
    """Takes each answer from an option, the terminal, or the suggested value."""

    def __init__(self, *, accept: bool) -> None:
        self.asks = sys.stdin.isatty() and not accept

    def answer(
        self,
        option: str,
        given: str | None,
        question: str,
        check: Callable[[str], str],
        suggested: str | None = None,
    ) -> str:
        """One checked answer. Stops if an option is wrong, or without a terminal to ask on."""
        if given is None and self.asks:
            return str(typer.prompt(question, default=suggested, value_proc=_asked(check)))
        if given is None and suggested is None:
            stop(f"{option} is required: give it as an option, or run init on a terminal")
        try:
            return check(given if given is not None else str(suggested))
        except ValueError as error:
            stop(f"{option} {error}")


def _asked(check: Callable[[str], str]) -> Callable[[str], str]:
    def checked(text: str) -> str:
        try:
            return check(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return checked


def host(text: str) -> str:
    """An address or a name."""
    return _checked("gateway_names", [text.strip()], text)


def user(text: str) -> str:
    """A user to log in as."""
    if not _USER.fullmatch(text.strip()):
        raise ValueError(f"'{text}' is not a user name; write one such as root or operator")
    return text.strip()


def profile(text: str) -> str:
    """The name of a profile."""
    return _checked(PROFILE, text.strip(), text)


def networks(text: str) -> str:
    """One or more networks, separated by commas."""
    written = split(text)
    for key in ("firewall_ssh_sources", "gateway_sources"):
        _checked(key, list(written), text)
    return ", ".join(written)


def split(text: str) -> tuple[str, ...]:
    """A list of networks, as they were written."""
    return tuple(filter(None, re.split(r"[,\s]+", text)))


def time_zone(text: str) -> str:
    """The name of a time zone."""
    return _checked("system_timezone", text.strip(), text)


def client(text: str) -> str:
    """The name of an API client."""
    return _checked("api_clients", [{"name": text.strip(), "sha256": "a" * 64}], text)


def _checked(key: str, value: Any, text: str) -> str:
    """The text, if the option accepts the value. Raises ValueError with the reason."""
    try:
        read_settings({key: value}, lambda _: ())
    except SettingsError as error:
        for problem in error.problems:
            if problem.key.startswith(key):
                # A pointer to the documentation does not help here.
                fix = "" if "docs/" in problem.fix else problem.fix
                sentence = "; ".join(filter(None, (problem.what, fix)))
                given = f"'{text.strip()}'"
                raise ValueError(sentence if given in sentence else f"{given} {sentence}") from None
    return text.strip()


def suggested_networks(host: str) -> str | None:
    """The /24 network of a private IPv4 address; None for other addresses and names."""
    address = _address(host)
    if isinstance(address, IPv4Address) and address.is_private:
        return str(ip_network(f"{address}/24", strict=False))
    return None


def local_time_zone() -> str:
    """The time zone of this machine, or UTC if it is unknown."""
    with suppress(OSError, ValueError):
        _, _, name = str(Path("/etc/localtime").resolve()).partition("/zoneinfo/")
        return time_zone(name)
    return "Etc/UTC"


def describe_profiles() -> Sequence[str]:
    """A line for each profile: its services and its models."""
    lines = []
    for name, each in PROFILES.items():
        models = ", ".join(model["name"] for model in each.defaults.get("models", ()))
        lines.append(f"  {name:<12} {', '.join(each.services)} (models: {models})")
    return lines


def _address(host: str) -> Any:
    try:
        return ip_address(host)
    except ValueError:
        return None
