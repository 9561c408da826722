"""Settings of sshd: stricter ones of others stay, and password login ends only after a key."""

import os
import subprocess
from pathlib import Path

import pytest

from llmhost.facts.sshd import Sshd
from llmhost.system.sshd import (
    DROP_IN,
    KEY,
    LOAD,
    SshdState,
    deviations,
    parse_values,
    passwords_end,
    render,
    second_factors,
    wanted,
)
from llmhost.template import render as render_template

ROOT = Path(__file__).parents[2]

# sshd -T of Debian 13, as far as it is compared.
DEBIAN = parse_values(
    """\
logingracetime 120
maxauthtries 6
clientaliveinterval 0
clientalivecountmax 3
permitrootlogin without-password
passwordauthentication yes
kbdinteractiveauthentication no
permitemptypasswords no
x11forwarding yes
allowagentforwarding yes
compression yes
maxstartups 10:30:100
loglevel INFO
banner none""".splitlines()
)
STATE = SshdState(DEBIAN, DEBIAN)
OWN = "# Managed by llmhost: edit the inventory instead.\n"
ENDED = OWN + "PasswordAuthentication no\n"


def test_only_what_is_less_strict_is_set() -> None:
    settings = wanted("baseline", STATE, passwords=False)
    lines = "PasswordAuthentication no\nX11Forwarding no\nLoginGraceTime 60\n"
    assert render(settings) == OWN + lines


def test_values_of_a_newer_sshd_are_read() -> None:
    """OpenSSH 10.6."""
    found = parse_values(["PermitRootLogin prohibit-password", "PasswordAuthentication yes"])
    settings = wanted("baseline", SshdState(found, found), passwords=False)
    assert render(settings) == OWN + "PasswordAuthentication no\n"


@pytest.mark.parametrize(
    ("others", "line"),
    [
        ({"maxauthtries": "3"}, "MaxAuthTries"),
        ({"permitrootlogin": "no"}, "PermitRootLogin"),
        ({"loglevel": "DEBUG3"}, "LogLevel"),
        ({"banner": "/etc/ssh/own"}, "Banner"),
        ({"maxstartups": "4:50:10"}, "MaxStartups"),
    ],
)
def test_stricter_settings_of_others_are_not_loosened(others: dict[str, str], line: str) -> None:
    found = SshdState(DEBIAN, DEBIAN | others)
    assert line not in render(wanted("cis", found, passwords=False))


@pytest.mark.parametrize("unlimited", [{"logingracetime": "0"}, {"clientaliveinterval": "0"}])
def test_zero_is_no_limit(unlimited: dict[str, str]) -> None:
    (keyword,) = unlimited
    found = SshdState(DEBIAN, DEBIAN | unlimited)
    assert keyword in render(wanted("cis", found, passwords=False)).lower()


def test_keyword_that_this_sshd_does_not_know_is_not_written() -> None:
    others = {key: value for key, value in DEBIAN.items() if key != "x11forwarding"}
    assert "X11" not in render(wanted("baseline", SshdState(others, others), passwords=True))


def test_password_login_stays_where_it_is_declared() -> None:
    assert "Password" not in render(wanted("cis", STATE, passwords=True))


@pytest.mark.parametrize(
    ("own", "method", "ends"),
    [
        ("", KEY, True),
        ("", "password", False),
        ("", "keyboard-interactive", False),
        ("", "", False),
        (ENDED, "", True),
        (ENDED, KEY, True),
        (ENDED, "password", False),
    ],
)
def test_password_login_ends_only_after_a_key(own: str, method: str, ends: bool) -> None:
    assert passwords_end(SshdState(own=own), method) is ends


def test_second_run_wants_the_same() -> None:
    settings = wanted("cis", STATE, passwords=False)
    values = DEBIAN | dict(each.in_force.split(" ", 1) for each in settings)
    again = SshdState(values, DEBIAN, render(settings))
    assert wanted("cis", again, passwords=False) == settings
    assert deviations(settings, again) == []


def test_deviation_names_both_values() -> None:
    settings = wanted("baseline", STATE, passwords=True)
    assert deviations(settings, STATE)[0] == "sshd has X11Forwarding yes, not no"


FACT = """\

effective passwordauthentication no
others passwordauthentication yes
changed 1795901000.5
own UGFzc3dvcmRBdXRoZW50aWNhdGlvbiBubwo=
=== unit
LoadState=loaded
ActiveState=active
StateChangeTimestamp=Sat 2026-11-28 07:00:00.000000 UTC
ExecMainStartTimestamp=Sat 2026-11-28 07:00:00.000000 UTC
Configured=1795849199.0"""


@pytest.mark.parametrize(
    ("configured", "changed", "stale"),
    [
        (1795849199, 1795849199, (False, False)),
        (1795849201, 1795849199, (True, False)),
        (1795849199, 1795849201, (False, True)),
    ],
)
def test_fact_is_read(configured: int, changed: int, stale: tuple[bool, bool]) -> None:
    text = FACT.replace("1795849199.0", f"{configured}.0").replace("1795901000.5", f"{changed}.0")
    found = Sshd().process(text.splitlines()[1:])
    assert (found.effective, found.others) == (
        {"passwordauthentication": "no"},
        {"passwordauthentication": "yes"},
    )
    assert found.own == "PasswordAuthentication no\n"
    assert (found.stale, found.others_stale) == stale


def test_sshd_that_cannot_be_read_is_no_host_without_sshd() -> None:
    text = "failed line 3: Bad option" + FACT[FACT.index("\n=== unit") :]
    found = Sshd().process(text.splitlines())
    assert (found.failed, found.effective) == ("line 3: Bad option", {})


def asked(directory: Path, **programs: str) -> list[str]:
    """What the script prints with these programs, for a `sshd_config` in the directory."""
    programs = {"sshd": "exit 0", "systemctl": "exit 3", **programs}
    for name, body in programs.items():
        (directory / name).write_text(f"#!/bin/sh\n{body}\n")
        (directory / name).chmod(0o755)
    main = directory / "sshd_config"
    main.touch()
    script = ROOT / "llmhost/files/system/sshd.sh"
    path = f"{directory}:{os.environ['PATH']}"
    command = ["sh", str(script), str(main), str(directory / "own.conf")]
    said = subprocess.run(
        command, env={"PATH": path}, capture_output=True, text=True, check=True, timeout=30
    )
    return said.stdout.splitlines()


BROKEN = "echo 'line 3: Bad option' >&2; exit 255"


@pytest.mark.parametrize(
    ("active", "said"),
    [
        ("ssh.service", ["failed line 3: Bad option"]),
        ("ssh.socket", ["failed line 3: Bad option"]),  # an sshd of its own for each connection
        ("nothing", []),
    ],
)
def test_script_says_why_sshd_cannot_read_its_configuration(
    tmp_path: Path, active: str, said: list[str]
) -> None:
    systemctl = f'case "$*" in *is-active*{active}*) exit 0 ;; esac; exit 3'
    assert asked(tmp_path, sshd=BROKEN, systemctl=systemctl) == said


def test_script_reads_what_only_some_users_may_do(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "sshd_config").write_text("PasswordAuthentication yes\nInclude more/*\n")
    (tmp_path / "more/a").write_text(
        "Match User guest\n  PasswordAuthentication=yes\n  X11Forwarding yes\n"
        "Match Group admins\n\tAuthenticationMethods publickey,keyboard-interactive\n"
    )
    (tmp_path / "more/b").write_text(f'Include "{tmp_path}/elsewhere"\nPermitRootLogin yes\n')
    (tmp_path / "elsewhere").write_text("Match all\nPermitRootLogin yes\n")
    found = Sshd().process([*asked(tmp_path), *FACT[FACT.index("=== unit") :].splitlines()])
    assert sorted(found.exceptions) == [
        f"{tmp_path}/elsewhere: Match all: PermitRootLogin yes",
        f"{tmp_path}/more/a: Match User guest: PasswordAuthentication yes",
    ]
    methods = "AuthenticationMethods publickey,keyboard-interactive"
    assert [*found.methods] == second_factors(found) == [methods]


def test_changes_of_included_files_are_seen(tmp_path: Path) -> None:
    (tmp_path / "sshd_config").write_text("Include company/*.conf own.conf\n")
    (tmp_path / "company").mkdir()
    for name in ("company/a.conf", "company/b.conf", "own.conf", "company/unused"):
        (tmp_path / name).touch()
    changed = [line for line in asked(tmp_path) if line.startswith("changed ")]
    assert len(changed) == 3  # the main file, a and b


@pytest.mark.parametrize(
    ("methods", "needs_password"),
    [
        ("publickey", False),
        ("any", False),
        ("publickey,keyboard-interactive:pam", True),
        ("publickey,password publickey,hostbased", True),
    ],
)
def test_second_factor_is_kept(methods: str, needs_password: bool) -> None:
    state = SshdState(methods=[f"AuthenticationMethods {methods}"])
    assert bool(second_factors(state)) is needs_password


def test_host_without_sshd_has_no_settings() -> None:
    assert Sshd().process(["=== unit", "LoadState=not-found"]).effective == {}


def test_trial_is_a_shell_script() -> None:
    text = render_template(
        "system/sshd_trial.sh.j2",
        stage="/run/x",
        unit="u",
        main="/etc/ssh/m",
        own=DROP_IN,
        load=LOAD,
    )
    assert text.startswith("#!/bin/sh\n# Managed by llmhost")
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
