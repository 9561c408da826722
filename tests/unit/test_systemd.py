"""Units compared with what systemd runs."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

from llmhost.facts.systemd import UnitQuestion, Units
from llmhost.operations.fact_prefetch import ask, merged
from llmhost.system.systemd import OTHER, UnitState, parse_unit, script, steps

CONVERGED = UnitState("loaded", "active", "enabled", started=100.0, loaded=100.0, configured=90.0)


def verbs(
    state: UnitState, *, running: bool = True, enabled: bool = True, reload: bool = False
) -> list[str]:
    return [s.verb for s in steps("x", state, running=running, enabled=enabled, reload=reload)]


@pytest.mark.parametrize("file", ["enabled", "static", "indirect", "generated", "alias", ""])
@pytest.mark.parametrize("reload", [False, True])
def test_unit_as_declared_is_left_alone(file: str, reload: bool) -> None:
    assert verbs(replace(CONVERGED, file=file), reload=reload) == []


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (replace(CONVERGED, active="inactive"), ["start"]),
        (replace(CONVERGED, active="failed"), ["start"]),
        (replace(CONVERGED, file="disabled"), ["enable --quiet"]),
        (replace(CONVERGED, configured=101.0), ["restart"]),
        (replace(CONVERGED, silent=True), ["restart"]),
        (replace(CONVERGED, needs_daemon_reload=True), ["daemon-reload", "restart"]),
        (UnitState(), ["enable --quiet", "start"]),
        (
            UnitState("masked", "inactive", "masked"),
            ["unmask", "enable --quiet", "start"],
        ),
        (
            UnitState("masked", "inactive", "masked-runtime"),
            ["unmask --runtime", "enable --quiet", "start"],
        ),
    ],
)
def test_unit_is_brought_to_run(state: UnitState, expected: list[str]) -> None:
    assert verbs(state) == expected


def test_unit_that_it_starts_is_unmasked_first() -> None:
    lines = ["ActiveState=inactive"]
    for name, load, file in (
        ("x.service", "masked", "masked-runtime"),
        ("y.service", "masked", "masked"),
        ("z.service", "loaded", "enabled"),
    ):
        told = (f"Id={name}", f"LoadState={load}", f"UnitFileState={file}", "")
        lines += [f"{OTHER}{line}" for line in told]
    todo = steps("x.socket", parse_unit(lines), running=True, enabled=False, reload=False)
    assert [step.command("x.socket") for step in todo] == [
        "systemctl unmask --runtime x.service",
        "systemctl unmask y.service",
        "systemctl start x.socket",
    ]


def test_unit_is_restarted_when_one_that_it_starts_is_stale() -> None:
    lines = ["LoadState=loaded", "ActiveState=active", "NeedDaemonReload=no"]
    lines += [f"{OTHER}Id=x.service", f"{OTHER}NeedDaemonReload=yes"]
    assert verbs(parse_unit(lines)) == ["daemon-reload", "restart"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (replace(CONVERGED, configured=101.0), ["reload"]),
        (replace(CONVERGED, configured=101.0, loaded=102.0), []),
        (replace(CONVERGED, loaded=102.0, reload_failed=True), ["reload"]),
        (replace(CONVERGED, configured=101.0, active="inactive"), ["start"]),
    ],
)
def test_unit_is_reloaded_when_its_configuration_is_newer(
    state: UnitState, expected: list[str]
) -> None:
    assert verbs(state, reload=True) == expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (CONVERGED, ["disable --quiet", "stop"]),
        (replace(CONVERGED, active="activating"), ["disable --quiet", "stop"]),
        (UnitState("loaded", "failed", "disabled"), []),
        (UnitState("masked", "inactive", "masked"), []),
        (UnitState(), []),
    ],
)
def test_unwanted_unit_is_stopped(state: UnitState, expected: list[str]) -> None:
    assert verbs(state, running=False, enabled=False) == expected


def test_unit_may_start_again_however_often_it_did() -> None:
    todo = steps("x y", UnitState("loaded", "failed"), running=True, enabled=True, reload=False)
    assert script("x y", todo).startswith(
        "systemctl reset-failed 'x y' 2>/dev/null; systemctl start 'x y' ||"
    )


def test_state_is_read_from_systemctl() -> None:
    state = parse_unit(
        [
            "LoadState=loaded",
            "ActiveState=active",
            "UnitFileState=enabled",
            "NeedDaemonReload=yes",
            "ReloadResult=exit-code",
            "ExecMainStartTimestamp=Thu 1970-01-01 00:01:40.250000 UTC",
            "ActiveEnterTimestamp=Thu 1970-01-01 00:01:41.000000 UTC",
            "StateChangeTimestamp=Thu 1970-01-01 00:02:00.500000 UTC",
            "Configured=12.0",
            "Configured=90.5",
            "Configured=90.25",
        ]
    )
    assert state == UnitState("loaded", "active", "enabled", True, True, 100.25, 120.5, 90.5)


def test_unit_without_a_process_counts_from_when_it_became_active() -> None:
    lines = ["ExecMainStartTimestamp=", "ActiveEnterTimestamp=Thu 1970-01-01 00:01:41.000000 UTC"]
    assert parse_unit(lines).started == 101.0


@pytest.mark.parametrize("value", ["", "n/a"])
def test_unit_that_never_ran_has_no_times(value: str) -> None:
    assert parse_unit([f"ExecMainStartTimestamp={value}"]).started == 0.0


SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$0.calls"
shift 3
for unit; do
    case $unit in
    absent*) printf 'LoadState=not-found\\nActiveState=inactive\\n\\n' ;;
    *) printf 'LoadState=loaded\\nActiveState=active\\nUnitFileState=%s\\n\\n' "${unit%.*}" ;;
    esac
done
"""


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A double of systemctl, which shows units as loaded and active, and the arguments it got."""
    program = tmp_path / "systemctl"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "systemctl.calls"


def test_units_of_several_operations_are_read_at_once(systemctl: Path, tmp_path: Path) -> None:
    (tmp_path / "option").touch()
    plain = [UnitQuestion("one.timer"), UnitQuestion("absent.timer")]
    configured = UnitQuestion("one.timer", (str(tmp_path / "option"),))
    asked = [ask(Units, questions=[each]) for each in (*plain, configured)]
    ((question, answered),) = merged(asked)
    assert answered == asked and question.command
    done = subprocess.run(["sh", "-c", question.command], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    first, absent, last = (
        each.value(lines)[key.key] for each, key in zip(asked, (*plain, configured), strict=True)
    )
    assert first == UnitState("loaded", "active", "one") and absent == UnitState()
    assert last == replace(first, configured=last.configured) and last.configured > 0
    assert len(systemctl.read_text().splitlines()) == 1


def test_units_are_read_again_if_systemctl_ends_early() -> None:
    questions = [UnitQuestion("one.timer"), UnitQuestion("two.timer")]
    answers = [f"answer:{each.key}" for each in questions]
    with pytest.raises(FactProcessError, match="1 of 2"):
        Units().process(["unit:LoadState=loaded", "unit:", *answers])
    assert [*Units().process(answers).values()] == [UnitState()] * 2  # a host without systemd
