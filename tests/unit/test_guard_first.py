"""files/docker/guard_first.sh with doubles of iptables' programs; integration/test_docker.py runs
it with the real ones."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path("files/docker/guard_first.sh")
LOADED = """\
*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -m comment --comment "a\\\\c" -j ACCEPT
-A FORWARD -j DOCKER-USER
COMMIT
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Doubles: what is restored is kept in the file `restored`."""
    for family in ("ip", "ip6"):
        _program(tmp_path, f"{family}tables-save", "cat $PLACE/loaded")
        _program(tmp_path, f"{family}tables-restore", "cat >>$PLACE/restored")
    (tmp_path / "loaded").write_text(LOADED)
    return tmp_path


def _program(place: Path, name: str, text: str) -> None:
    (place / name).write_text(f"#!/bin/sh\n{text}\n")
    (place / name).chmod(0o755)


def run(place: Path) -> int:
    variables = {"PATH": f"{place}:{os.environ['PATH']}", "PLACE": str(place)}
    return subprocess.run(["sh", SCRIPT], env=variables, capture_output=True).returncode


def restored(place: Path) -> list[str]:
    file = place / "restored"
    return file.read_text().split("*filter\n")[1:] if file.exists() else []


MOVED = "-D FORWARD -j DOCKER-USER\n-I FORWARD -j DOCKER-USER\nCOMMIT\n"


def test_jump_is_moved_to_the_top_in_one_transaction(programs: Path) -> None:
    assert run(programs) == 0
    assert set(restored(programs)) == {MOVED}


def test_jump_that_somebody_removed_is_added(programs: Path) -> None:
    (programs / "loaded").write_text(LOADED.replace("-A FORWARD -j DOCKER-USER\n", ""))
    assert run(programs) == 0
    assert set(restored(programs)) == {"-I FORWARD -j DOCKER-USER\nCOMMIT\n"}


def test_daemon_that_adds_no_rules_is_left_alone(programs: Path) -> None:
    (programs / "loaded").write_text("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n")
    assert run(programs) == 0
    assert restored(programs) == []


def test_rules_that_change_meanwhile_are_read_again(programs: Path) -> None:
    _program(
        programs,
        "iptables-restore",
        "[ -e $PLACE/tried ] || { touch $PLACE/tried; exit 1; }; cat >>$PLACE/restored",
    )
    assert run(programs) == 0
    assert MOVED in restored(programs)


@pytest.mark.parametrize("program", ["iptables-save", "iptables-restore"])
def test_rules_that_cannot_be_changed_stop_docker(programs: Path, program: str) -> None:
    _program(programs, program, "cat >/dev/null; exit 4")
    assert run(programs) == 1
