"""A unit as declared, compared with what systemd runs.

Pure: the state comes from facts/systemd.py, the commands are run by operations/systemd.py.
"""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

OTHER = "other:"
"""Prefix of lines about units that the unit starts."""
_CONFIGURED = "Configured="


@dataclass(frozen=True)
class UnitState:
    """State of a unit. Times are in seconds since the epoch, 0.0 for never.

    `started` is when its main process started, `loaded` when it last started or was reloaded;
    `configured` is when its newest configuration path changed; `silent`: it is active and does not
    answer. `masked_others` are the masked units among those that it starts, with their `file`.
    """

    load: str = "not-found"
    active: str = "inactive"
    file: str = ""
    needs_daemon_reload: bool = False
    reload_failed: bool = False
    started: float = 0.0
    loaded: float = 0.0
    configured: float = 0.0
    silent: bool = False
    masked_others: tuple[tuple[str, str], ...] = ()

    @property
    def masked(self) -> bool:
        return self.load == "masked"

    @property
    def running(self) -> bool:
        return self.active in {"active", "reloading", "refreshing"}


def parse_unit(lines: list[str]) -> UnitState:
    """Lines of `systemctl show` (Key=Value, times as --timestamp=us+utc prints them) and a line
    `Configured=` for each file, with the seconds since the epoch of its last change. Those of other
    units begin with OTHER, with an empty one between two units."""
    changes = [line.removeprefix(_CONFIGURED) for line in lines if line.startswith(_CONFIGURED)]
    values = _values(line for line in lines if not line.startswith(OTHER))
    others = _others(line.removeprefix(OTHER) for line in lines if line.startswith(OTHER))
    entered = _time(values.get("ActiveEnterTimestamp", ""))
    started = _time(values.get("ExecMainStartTimestamp", "")) or entered
    return UnitState(
        load=values.get("LoadState", "not-found"),
        active=values.get("ActiveState", "inactive"),
        file=values.get("UnitFileState", ""),
        needs_daemon_reload=any(
            each.get("NeedDaemonReload") == "yes" for each in (values, *others)
        ),
        reload_failed=values.get("ReloadResult", "success") != "success",
        started=started,
        # A reload does not change the process and ActiveEnterTimestamp, but the unit passes through
        # the state "reloading" (systemd, src/core/unit.c, unit_notify).
        loaded=max(started, _time(values.get("StateChangeTimestamp", ""))),
        configured=max(map(float, changes), default=0.0),
        silent=values.get("Silent") == "yes",
        masked_others=tuple(
            (each["Id"], each["UnitFileState"])
            for each in others
            if each.get("LoadState") == "masked"
        ),
    )


def _values(lines: Iterable[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _others(lines: Iterable[str]) -> list[dict[str, str]]:
    blocks = "\n".join(lines).split("\n\n")
    return [_values(block.splitlines()) for block in blocks]


def _time(text: str) -> float:
    """`Sat 2026-11-21 07:40:28.123456 UTC`; systemd prints nothing, or n/a, for never."""
    _, _, moment = text.partition(" ")
    if not moment:
        return 0.0
    parsed = datetime.strptime(moment, "%Y-%m-%d %H:%M:%S.%f UTC")
    return parsed.replace(tzinfo=UTC).timestamp()


@dataclass(frozen=True)
class Step:
    """One systemctl command and its reason; `other` is its unit, if it is not the declared one."""

    verb: str
    reason: str
    other: str = ""

    def command(self, unit: str) -> str:
        """The shell command; `daemon-reload` has no unit."""
        concerned = "" if self.verb == "daemon-reload" else f" {self.other or unit}"
        return f"systemctl {self.verb}{concerned}"


def steps(
    unit: str, state: UnitState, *, running: bool, enabled: bool, reload: bool
) -> tuple[Step, ...]:
    """Steps in order; empty if the unit is as declared."""
    others = state.masked_others if running else ()
    found = [
        *(Step(_unmask(file), f"{other} is masked", shlex.quote(other)) for other, file in others),
        _unmasking(unit, state, wanted=running or enabled),
        _daemon_reload(unit, state, running=running),
        _enabling(unit, state, enabled=enabled),
        _running(unit, state, reload=reload) if running else _stopping(unit, state),
    ]
    return tuple(step for step in found if step)


def _unmasking(unit: str, state: UnitState, *, wanted: bool) -> Step | None:
    if not (wanted and state.masked):
        return None
    return Step(_unmask(state.file), f"{unit} is masked")


def _unmask(file: str) -> str:
    return "unmask --runtime" if file == "masked-runtime" else "unmask"


def _daemon_reload(unit: str, state: UnitState, *, running: bool) -> Step | None:
    # Only if necessary: containers that got GPUs by the legacy hook lose them (NVIDIA Container
    # Toolkit, issues 48 and 1744).
    due = running and state.needs_daemon_reload
    return (
        Step("daemon-reload", f"systemd has loaded an older {unit} than the one on disk")
        if due
        else None
    )


def _enabling(unit: str, state: UnitState, *, enabled: bool) -> Step | None:
    # static, indirect, generated and alias units can be neither enabled nor disabled.
    if enabled and (state.file == "disabled" or state.load == "not-found" or state.masked):
        return Step("enable --quiet", f"{unit} does not start at boot")
    if not enabled and state.file in {"enabled", "enabled-runtime"}:
        return Step("disable --quiet", f"{unit} starts at boot")
    return None


def _running(unit: str, state: UnitState, *, reload: bool) -> Step | None:
    if not state.running:
        return Step("start", f"{unit} is {state.active}")
    if state.silent:
        return Step("restart", f"{unit} does not answer as declared")
    if state.needs_daemon_reload:
        return Step("restart", f"{unit} runs with an older unit file than the one on disk")
    if reload and state.configured > state.loaded:
        return Step("reload", f"{unit} has not loaded its changed configuration")
    if reload and state.reload_failed:
        return Step("reload", f"{unit} failed to load its configuration")
    if not reload and state.configured > state.started:
        return Step("restart", f"{unit} runs with an older configuration than the one on disk")
    return None


def _stopping(unit: str, state: UnitState) -> Step | None:
    stopped = state.active in {"inactive", "failed"}
    return None if stopped else Step("stop", f"{unit} must not run")


def script(unit: str, todo: tuple[Step, ...], afterwards: str = "") -> str:
    """Shell script that executes the steps and stops at the first failure; then `afterwards`."""
    quoted = shlex.quote(unit)
    commands = " && ".join(step.command(quoted) for step in todo)
    text = (
        # systemd refuses to start a unit that failed or reached its start limit, until a reset;
        # Docker's limit is three starts a minute.
        f"systemctl reset-failed {quoted} 2>/dev/null; {commands} ||"
        # systemctl reports that a unit failed, but not why.
        f" {{ systemctl status --no-pager --lines=15 {quoted} >&2; exit 1; }}"
    )
    return f"( {text} ); status=$?; {afterwards}; exit $status" if afterwards else text
