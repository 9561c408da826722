"""Commands of our own run on a host as pyinfra's do."""

import subprocess
from typing import Any, cast

from pyinfra.api import Config, Host, Inventory, State, StringCommand

from llmhost.operations.connection_arguments import connection_arguments, shell_line


def host(**data: Any) -> Host:
    inventory = Inventory(([("server", data)], {}))  # type: ignore[no-untyped-call]
    config = Config()  # type: ignore[no-untyped-call]
    State(inventory, config)
    return inventory.get_host("server")


def test_inventory_says_how_commands_are_run() -> None:
    assert connection_arguments(host())["_sudo"] is False
    found = connection_arguments(host(_sudo=True, _sudo_user="llm", _env={"A": "b"}))
    assert (found["_sudo"], found["_sudo_user"], found["_env"]) == (True, "llm", {"A": "b"})


def test_operation_goes_before_the_inventory() -> None:
    server = host(_sudo=True)
    cast(Any, server).current_op_global_arguments = {"_sudo": False, "_su_user": "llm"}
    found = connection_arguments(server)
    assert (found["_sudo"], found["_su_user"]) == (False, "llm")


def test_only_what_a_connection_takes_is_given() -> None:
    assert "_if" not in connection_arguments(host()) and "name" not in connection_arguments(host())


def test_line_for_a_shell_holds_all_of_it() -> None:
    server = host(_env={"GREETING": "it's"})
    line = shell_line(server, StringCommand("printenv", "GREETING"), connection_arguments(server))
    assert subprocess.run(["sh", "-c", line], capture_output=True, text=True).stdout == "it's\n"
    assert "sudo" in shell_line(server, StringCommand("id"), {"_sudo": True})
