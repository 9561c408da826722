"""Time zone and time synchronisation."""

import pytest

from llmhost.system.clock import ClockState, parse_clock, unsynchronized, wrong_zone, zone_script


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (ClockState("/usr/share/zoneinfo/Asia/Seoul"), ""),
        (ClockState("../usr/share/zoneinfo/Asia/Seoul", "Asia/Seoul"), ""),
        (ClockState("/usr/share/zoneinfo/Etc/UTC"), "the time zone is Etc/UTC, not Asia/Seoul"),
        (ClockState(), "the time zone is UTC, not Asia/Seoul"),
        (
            ClockState("/usr/share/zoneinfo/Asia/Seoul", "Etc/UTC"),
            "/etc/timezone is Etc/UTC, not Asia/Seoul",
        ),
    ],
)
def test_time_zone_is_compared(state: ClockState, reason: str) -> None:
    assert wrong_zone("Asia/Seoul", state) == reason


@pytest.mark.parametrize(
    ("lines", "right"),
    [
        (["unit systemd-timesyncd.service enabled enabled"], True),
        (["unit systemd-timesyncd.service disabled enabled", "unit chrony.service enabled"], True),
        (["unit systemd-timesyncd.service disabled enabled"], False),
        ([], False),
        (["container systemd-nspawn"], True),
        (["container wsl"], True),
        (["container none"], False),
    ],
)
def test_one_daemon_is_enough(lines: list[str], right: bool) -> None:
    assert (unsynchronized(parse_clock(lines)) == "") is right


def test_state_is_read() -> None:
    lines = ["link /usr/share/zoneinfo/Etc/UTC", "zone Etc/UTC", "unit chrony.service disabled x"]
    assert parse_clock(lines) == ClockState(
        "/usr/share/zoneinfo/Etc/UTC", "Etc/UTC", frozenset(), frozenset({"chrony.service"})
    )


def test_timezone_file_is_written_only_where_there_is_one() -> None:
    assert "/etc/timezone" not in zone_script("Etc/UTC", file=False)
    assert "/etc/timezone" in zone_script("Etc/UTC", file=True)
