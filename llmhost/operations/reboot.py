"""A reboot that the run waits for."""

import time

from paramiko import SSHException
from pyinfra import logger
from pyinfra.api import FunctionCommand, Host, State, StringCommand
from pyinfra.connectors.util import clear_askpass_cache, remove_any_sudo_askpass_file

from llmhost.operations.declaration import Commands

# The kernel's own name for the present boot: it tells a host that has rebooted from one that has
# not gone down yet, which neither the time nor the uptime does.
_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def reboot(timeout_seconds: int) -> Commands:
    """Reboot and wait until the host answers with another boot id; fails after the time given."""
    before: list[str] = []

    def remember(state: State, host: Host) -> bool:
        del state
        # It would be looked for on the new connection, and /tmp is empty after a reboot.
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
        late = f"the host did not come back within {timeout_seconds} s of its reboot"
        host.log_styled(late, fg="red", log_func=logger.error)
        return False

    yield FunctionCommand(remember, [], {})
    # Detached and a little later, so that the command itself has ended in good order by then.
    yield StringCommand(
        "sync; nohup sh -c 'sleep 2; systemctl reboot' </dev/null >/dev/null 2>&1 &"
    )
    yield FunctionCommand(wait, [], {})


def _boot_id(host: Host) -> str:
    """Over a new connection; empty while the host is away."""
    try:
        host.disconnect()
        host.connect(show_errors=False)
        if host.connected:
            succeeded, output = host.run_shell_command(StringCommand(_BOOT_ID), _timeout=15)
            return output.stdout.strip() if succeeded else ""
    except (OSError, EOFError, SSHException):
        pass
    return ""
