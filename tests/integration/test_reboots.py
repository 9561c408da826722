"""A GPU service comes back by itself: reboot or killed Docker, spec at boot or late, each engine.

A machine for each engine: `script/test reboots`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests.integration.gpu_site import GpuServer, gpu_machine
from tests.integration.outage import HAPPENINGS, late_spec, restarted, wait_for_answer

pytestmark = [pytest.mark.machines, pytest.mark.reboots]

ENGINES = {
    "before 28.2": "trixie",  # docker.io 26.1.5 restores containers before it knows CDI
    "after 28.2": "forky",
}
Servers = Callable[[str], GpuServer]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The server of an engine, made when it is first needed."""
    with ExitStack() as stack:

        @cache
        def server(engine: str) -> GpuServer:
            top = tmp_path_factory.mktemp("site")
            return stack.enter_context(gpu_machine(top, "gpu", ENGINES[engine]))

        yield server


@pytest.mark.parametrize("happening", HAPPENINGS)
@pytest.mark.parametrize("spec", ["at boot", "30 s late"])
@pytest.mark.parametrize("engine", ENGINES)
def test_service_answers_again(servers: Servers, engine: str, spec: str, happening: str) -> None:
    server = servers(engine)
    version = server.machine.ssh("docker version -f '{{.Server.Version}}'").stdout
    assert (tuple(map(int, version.split(".")[:2])) < (28, 2)) is (engine == "before 28.2")
    since = restarted(server.machine, happening, late=spec != "at boot")
    if spec != "at boot":
        late_spec(server.machine)
    wait_for_answer(server)
    healed = server.machine.ssh(f"journalctl -u llmhost-heal -o cat --since=@{since}").stdout
    if engine == "before 28.2":
        assert 'could not select device driver "cdi"' in healed, healed
    elif spec != "at boot":
        assert "unresolvable CDI devices" in healed, healed
    else:
        assert "should run but" not in healed, healed


def test_a_refresh_that_hangs_does_not_stop_docker(servers: Servers) -> None:
    machine, program = servers("before 28.2").machine, "/usr/bin/nvidia-ctk"
    refresh = "nvidia-cdi-refresh.service"
    machine.ssh(f"cp {program} /root/kept; printf '#!/bin/sh\\nexec sleep 3600\\n' >{program}")
    try:
        machine.ssh("systemctl stop docker.socket docker.service")
        machine.ssh(f"systemctl start --no-block {refresh}; systemctl start docker.service")
        # It was waited for, and it still hangs.
        state = machine.ssh(f"systemctl is-active docker.service {refresh}", check=False)
        assert state.stdout == "active\nactivating\n"
    finally:
        machine.ssh(f"cp /root/kept {program}; systemctl restart {refresh}")
    wait_for_answer(servers("before 28.2"))
