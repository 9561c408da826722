"""Outages of a GPU server, and how it comes back."""

import json
import time

from testbed import Machine
from testbed.process import wait_until
from tests.integration.gpu_site import CONTAINER, GpuServer

HAPPENINGS = ("reboot", "kill -9")
_SPEC = "/var/run/cdi/nvidia.yaml"
_REFRESH = "nvidia-cdi-refresh.service"
_LATE_SECONDS = 30

# Docker may not see the containers end: it and what supervises them are killed first.
_KILL = f"""
systemctl mask --quiet --runtime docker.service
init=$(docker inspect -f '{{{{.State.Pid}}}}' {CONTAINER})
kill -9 $(pidof dockerd) $(pgrep -x containerd-shim) $init
while kill -0 $init 2>/dev/null; do sleep 0.1; done
systemctl unmask --quiet --runtime docker.service
"""


def restarted(machine: Machine, happening: str, *, late: bool) -> int:
    """Let something happen to a machine; with `late`, there is no CDI spec afterwards. Returns when
    it happened, in seconds since the epoch."""
    since = int(machine.ssh("date +%s").stdout)
    if late:
        machine.ssh(f"systemctl disable --quiet {_REFRESH}")
    if happening == "reboot":
        machine.reboot()
    else:
        gone = f"rm {_SPEC}" if late else ":"
        machine.ssh(f"{_KILL}\n{gone}\nsystemctl start docker.service")
    return since


def late_spec(machine: Machine) -> None:
    """Let the CDI spec arrive 30 seconds after Docker. The container does not run before."""
    machine.ssh(f"systemctl is-active docker.service && ! test -e {_SPEC}")
    time.sleep(_LATE_SECONDS)
    state = machine.ssh(f"docker inspect -f '{{{{.State.Status}}}}' {CONTAINER}").stdout
    assert state == "exited\n", state
    machine.ssh(f"systemctl enable --quiet --now {_REFRESH}")


def wait_for_answer(server: GpuServer) -> None:
    """A completion through the gateway, within the start time of the services."""
    gateway, machine = server.settings().gateway, server.machine
    body = json.dumps({"model": "tiny", "prompt": "One, two,", "max_tokens": 4})
    command = ["curl", "-sS", "--fail", "-m", "30", "-H", f"Authorization: Bearer {server.key}"]
    command += ["-H", "Content-Type: application/json", "-d", body]
    command += ["--cacert", str(gateway.ca_certificate), "--connect-to"]
    command += [f"{machine.name}:{gateway.port}:{machine.address}:{gateway.port}"]
    command += [f"{gateway.url(machine.name)}/v1/completions"]

    def answers() -> bool:
        return server.client.run(command, check=False).returncode == 0

    if not wait_until(answers, server.settings().stack.start_timeout_seconds, 1):
        raise AssertionError(machine.ssh(f"docker ps --all; docker inspect {CONTAINER}").stdout)
