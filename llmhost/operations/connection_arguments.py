"""Connection arguments (sudo, su, environment and so on) for commands outside operations.

pyinfra determines them for operations and facts; all other code that runs a command on a host uses
this module.
"""

from collections.abc import Mapping
from typing import Any

from pyinfra.api import Host, StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.connectors.util import extract_control_arguments, make_unix_command_for_host


def connection_arguments(host: Host) -> dict[str, Any]:
    """Keyword arguments for `host.run_shell_command`.

    Inside an operation, they are those of the operation; elsewhere, those of the inventory.
    """
    arguments: Any = host.current_op_global_arguments
    return of_connection(arguments or pop_global_arguments(host.state, host, {})[0])


def of_connection(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The subset of an operation's global arguments that `connection_arguments` returns."""
    return {key: arguments[key] for key in CONNECTOR_ARGUMENT_KEYS if key in arguments}


def shell_line(host: Host, command: StringCommand, arguments: Mapping[str, Any]) -> str:
    """The command line for the host's login shell, for a channel that pyinfra does not run.

    `arguments` come from `connection_arguments`.
    """
    own: Any = dict(arguments)
    extract_control_arguments(own)  # removes what is not part of the command
    return str(make_unix_command_for_host(host.state, host, command, **own).get_raw_value())
