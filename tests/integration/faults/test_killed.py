"""Runs that are killed at random points of the way from a bare machine to a server.

What is killed is the controller's pyinfra, the host's end of its connection, or the machine. Some
kills in a row, each in the run that went on where the one before was ended; then a run that nobody
disturbs, after which the server is what one undisturbed run had made of a bare machine.
"""

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from tests.integration.drift.server import ROOT, Server, declared_server
from tests.integration.faults.digest import state_lines

pytestmark = [pytest.mark.machines, pytest.mark.faults]

SEED = 20261121
SEQUENCES, KILLS = 8, 5
"""A kill may come too late: about thirty of these find a run that goes on."""
LONGEST_SECONDS = 10.0
"""Of a kill after the start of its run; five runs reach about as far as one undisturbed."""


@dataclass(frozen=True)
class Bare:
    """A server that can be had bare again and again, and what one undisturbed run makes of it."""

    server: Server
    lines: list[str]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    with declared_server(tmp_path_factory.mktemp("faults"), "plain") as server:
        server = server.afresh()
        deployed = server.deploy()
        assert deployed.returncode == 0, deployed.stderr
        yield Bare(server, state_lines(server.machine))


def kill_pyinfra(server: Server, run: "subprocess.Popen[bytes]") -> None:
    """The controller dies."""
    run.kill()
    run.wait()


def kill_session(server: Server, run: "subprocess.Popen[bytes]") -> None:
    """The host's end of the connection dies."""
    # Of the sshd processes that serve somebody, all but the two that serve this command.
    server.machine.ssh(
        "mine=$PPID; above=$(ps -o ppid= -p $mine | tr -d ' ');"
        " for each in $(pgrep -f '^sshd(-session)?: root'); do"
        ' case "$each" in $mine|$above) ;; *) kill -KILL "$each" ;; esac; done'
    )
    run.wait(300)  # it goes on where it has to connect anew anyway


def kill_machine(server: Server, run: "subprocess.Popen[bytes]") -> None:
    """The host loses its power, and has it again."""
    server.machine.kill()
    run.kill()
    run.wait()
    server.machine.start()


Kill = Callable[[Server, "subprocess.Popen[bytes]"], None]


def points(sequence: int) -> list[tuple[Kill, float]]:
    """What is killed and after how many seconds, as drawn for a sequence."""
    drawn = random.Random(SEED + sequence)
    kinds: list[Kill] = [kill_pyinfra, kill_session, kill_machine]
    kinds = [kinds[(sequence + each) % 3] for each in range(KILLS)]
    drawn.shuffle(kinds)
    return [(kind, drawn.uniform(0.5, LONGEST_SECONDS)) for kind in kinds]


def killed(server: Server, kill: Kill, seconds: float) -> bool:
    """Deploy, and kill it after this time; False if it was done by then."""
    with subprocess.Popen(
        server.deployment,
        cwd=ROOT,
        env=server.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        with suppress(subprocess.TimeoutExpired):
            run.wait(seconds)
        if run.poll() is not None:
            return False
        kill(server, run)
    return True


@pytest.mark.parametrize("sequence", range(SEQUENCES))
def test_run_after_killed_ones_makes_what_an_undisturbed_one_makes(
    bare: Bare, sequence: int
) -> None:
    server, begun = bare.server.afresh(), time.monotonic()
    done = [killed(server, kill, seconds) for kill, seconds in points(sequence)]
    assert sum(done) >= 3, "too fast a machine: shorten LONGEST_SECONDS"
    healed = server.deploy()
    assert healed.returncode == 0, healed.stderr
    print(f"{sum(done)} of {len(done)} killed, {time.monotonic() - begun:.0f} s")
    assert server.plan()[0] == 0
    # Lines rather than their digest, so that a difference has a name.
    found = state_lines(server.machine)
    differences = sorted({*bare.lines} ^ {*found})
    assert not differences, "\n".join(differences)
    assert found == bare.lines
