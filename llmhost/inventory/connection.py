"""How pyinfra connects to a host: the keys of its SSH connector in the inventory.

pyinfra reports a wrong type as a type error, and ignores a misspelled key.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import ValidationError

from llmhost.inventory.mistakes import details, nearest, problem, shown_key
from llmhost.inventory.problem import Problem
from llmhost.options.base import Section
from llmhost.options.kind import ADDRESS, WORD, given
from llmhost.options.types import CountOrZero, Flag, OneOf, text, whole

PREFIX = "ssh_"
_Host = Annotated[str, text(r"\S+", "a host name or an IP address", "192.168.0.10", ADDRESS)]
_User = Annotated[str, text(r"\S+", "the name of a user of the host", "root", WORD)]
_Password = Annotated[str, text(r"(?s).*", "text", "…")]
_Path = Annotated[
    str, text(r"\S(?:[^\r\n\x00]*\S)?", "a path on the controller", "~/.ssh/id_ed25519")
]


class Connection(Section):
    """The options of pyinfra's SSH connector, without their prefix."""

    hostname: _Host = "llm-server"
    port: Annotated[int, whole(1, 65535, "", 22, "a port number")] = 22
    user: _User = "root"
    password: _Password = ""
    key: _Path = "~/.ssh/id_ed25519"
    key_password: _Password = ""
    allow_agent: Flag = True
    look_for_keys: Flag = True
    forward_agent: Flag = False
    config_file: _Path = "~/.ssh/config"
    known_hosts_file: _Path = "~/.ssh/known_hosts"
    strict_host_key_checking: OneOf[Literal["accept-new", "yes", "no", "ask", "off"]] = "accept-new"
    paramiko_connect_kwargs: Any = None
    connect_retries: CountOrZero = 0
    connect_retry_min_delay: Any = None
    connect_retry_max_delay: Any = None
    file_transfer_protocol: OneOf[Literal["sftp", "scp"]] = "sftp"


def connection_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Mistakes in a host's connection data."""
    known = {PREFIX + name for name in Connection.model_fields}
    own = {key: value for key, value in data.items() if key.startswith(PREFIX)}
    for key in sorted(own.keys() - known):
        yield Problem(shown_key(key), "unknown key", nearest(key, known, "remove it"))
    options = {key.removeprefix(PREFIX): own[key] for key in own.keys() & known}
    try:
        Connection.model_validate(options)
    except ValidationError as error:
        yield from (problem(PREFIX, Connection, detail) for detail in details(error))
    sudo = data.get("_sudo", False)
    if not isinstance(sudo, bool):
        yield Problem("_sudo", f"is {given(sudo, WORD)}", "write True or False")
