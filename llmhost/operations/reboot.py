"""Reboot a host and wait until it is back."""

import time

from paramiko import SSHException
from pyinfra import logger
from pyinfra.api import FunctionCommand, Host, State, StringCommand
from pyinfra.connectors.util import clear_askpass_cache, remove_any_sudo_askpass_file

from llmhost.operations.declaration import Commands

# The kernel's id of the current boot. Unlike time or uptime, it distinguishes a host that has
# rebooted from one that is not down yet.
_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def reboot(timeout_seconds: int) -> Commands:
    """Reboot and wait until the host has another boot id; fails after the timeout."""
    before: list[str] = []

    def remember(state: State, host: Host) -> bool:
        del state
        # It would be expected on the new connection, but /tmp is empty after a reboot.
        remove_any_sudo_askpass_file(host)
        before.append(_boot_id(host))
        return bool(before[0])

    def wait(state: State, host: Host) -> bool:
        del state
        clear_askpass_cache(host)
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            time.sleep(1)
            if _boot_id(host) not in {"", before[0]}:
                return True
        late = (
            f"the host has not come back within {timeout_seconds} s of its reboot: check its"
            " console, then deploy again"
        )
        host.log_styled(late, fg="red", log_func=logger.error)
        return False

    yield FunctionCommand(remember, [], {})
    # Detached and delayed, so that this command ends normally first.
    yield StringCommand(
        "sync; nohup sh -c 'sleep 2; systemctl reboot' </dev/null >/dev/null 2>&1 &"
    )
    yield FunctionCommand(wait, [], {})


def _boot_id(host: Host) -> str:
    """The boot id, over a new connection; empty while the host is down."""
    try:
        host.disconnect()
        host.connect(show_errors=False)
        if host.connected:
            succeeded, output = host.run_shell_command(StringCommand(_BOOT_ID), _timeout=15)
            return output.stdout.strip() if succeeded else ""
    except (OSError, EOFError, SSHException):
        pass
    return ""
