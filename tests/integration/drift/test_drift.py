"""What somebody does to a server by hand, `plan` finds and names, and the next deploy corrects.

One machine of each kind serves all cases, which are in cases.py. `script/test drift` runs them;
with LLMHOST_DRIFT=DIRECTORY the machines stay there, for another run of some of them (-k).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import cache

import pytest

from llmhost.checks.catalogue import HERE
from llmhost.gateway.authority import open_authority
from llmhost.gateway.x509 import names_in
from tests.integration.drift.case import Drift, Foreign
from tests.integration.drift.cases import CASES
from tests.integration.drift.foreign import FOREIGN
from tests.integration.drift.gateway import SHORT_LIVED
from tests.integration.drift.server import Server, converged_server

pytestmark = [pytest.mark.machines, pytest.mark.drift]

# Something of every component, so that all of them have to be corrected at once.
MUCH = (
    *("apt-settings-deleted", "hosts-entry-edited", "docker-key-removed", "rule-added"),
    *(
        "egress-table-removed",
        "iptables-accepts-a-port",
        "nginx-include-added",
        "container-removed",
    ),
    *("healing-disabled", "compose-file-extra", "receipt-deleted"),
)


Servers = Callable[[str], Server]
"""The server of a kind, made when it is first asked for."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:

        @cache
        def server(kind: str) -> Server:
            home = tmp_path_factory.mktemp(kind)
            found = stack.enter_context(converged_server(home, kind))
            _lay_ready(found)
            return found

        yield server


def _lay_ready(server: Server) -> None:
    """What cases use and nobody on a server could make."""
    authority = open_authority(server.home / "ca", create=False)
    own = server.machine.ssh("openssl x509 -in /etc/nginx/llmhost/tls.pem").stdout
    pem = authority.issue(names_in(own.encode()), datetime.now().astimezone(), days=10)
    server.machine.ssh(f"umask 077; cat >{SHORT_LIVED}", input=pem.decode())


ALL = [(kind, case) for kind, cases in CASES.items() for case in cases]


@pytest.mark.parametrize(("kind", "case"), ALL, ids=[f"{kind}-{case.id}" for kind, case in ALL])
def test_drift_is_found_named_and_corrected(servers: Servers, kind: str, case: Drift) -> None:
    server = servers(kind)
    server.machine.ssh(case.by_hand)
    status, told = server.plan()
    assert status == 2, told
    reasons = [
        reason
        for step in told["steps"]
        if step["component"] == case.component
        for reason in step["reasons"]
    ]
    assert any(case.sign in reason for reason in reasons), told["steps"]
    deployed = server.deploy()
    assert deployed.returncode == 0, deployed.stderr
    status, told = server.plan()
    assert status == 0, told
    guarded = server.check(node(case.guard))
    assert guarded.returncode == 0 and " passed" in guarded.stdout, guarded.stdout


def node(check: str) -> str:
    """pytest's id of a check."""
    component, _, words = check.partition(".")
    places = (HERE / f"test_{component}.py", HERE / "services" / f"test_{component}.py")
    (path,) = (place for place in places if place.exists())
    return f"{path}::test_{words.replace('-', '_')}"


@pytest.fixture(scope="module")
def looks(servers: Servers) -> Iterator[dict[Foreign, tuple[str, str]]]:
    """What is not ours, before and after a deploy that corrects much of what is."""
    server = servers("plain")
    machine, by_id = server.machine, {case.id: case for case in CASES["plain"]}
    try:
        for each in FOREIGN:
            machine.ssh(each.by_hand)
        assert server.deploy().returncode == 0
        before = {each: machine.ssh(each.look).stdout for each in FOREIGN}
        for drift in MUCH:
            machine.ssh(by_id[drift].by_hand)
        deployed = server.deploy()
        assert deployed.returncode == 0, deployed.stderr
        assert server.plan()[0] == 0
        yield {each: (before[each], machine.ssh(each.look).stdout) for each in FOREIGN}
    finally:
        for each in FOREIGN:
            machine.ssh(each.undo, check=False)


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: foreign.id)
def test_what_is_not_ours_is_left_alone(
    looks: dict[Foreign, tuple[str, str]], foreign: Foreign
) -> None:
    before, after = looks[foreign]
    assert before and after == before
