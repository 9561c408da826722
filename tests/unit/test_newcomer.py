"""Mistakes of someone who uses llmhost for the first time: one sentence each, never a traceback,
and nothing about how the program is built."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmhost.cli.app import PLACES, app, command
from llmhost.cli.messages import Messages

LLMHOST = Path(sys.executable).with_name("llmhost")
ROOT = Path(__file__).parents[2]
SITE = "inventory/site.py"
HOST = {"ssh_hostname": "127.0.0.1", "ssh_port": 9, "services": ["redis"]}
CLIENTS = '[{"name": "app", "sha256": "' + "ab" * 32 + '"}]'
INTERNAL = re.compile(
    r"Traceback|Errno|Input should|parse string|Error:|typeguard|pydantic|paramiko"
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site whose host refuses connections: nothing listens on this port of the loopback."""
    (tmp_path / "inventory").mkdir()
    text = f"llm_servers = ([('far', {HOST!r})], {{'api_clients': {CLIENTS}}})\n"
    (tmp_path / SITE).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def refused(*arguments: str) -> tuple[int, str]:
    """The same for a command that stops before it reads an inventory: in this process, faster."""
    ran = CliRunner().invoke(app, arguments)
    output = re.sub(r"[│╭╮╰╯─\s]+", " ", ran.output)
    assert not INTERNAL.search(output + repr(ran.exception)), output
    return ran.exit_code, output


def said(*arguments: str) -> tuple[int, str]:
    """Exit status, and what a command prints, without the frames of a terminal."""
    ran = subprocess.run(
        [LLMHOST, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    output = re.sub(r"[│╭╮╰╯─\s]+", " ", ran.stdout + ran.stderr)
    assert not INTERNAL.search(output), output
    return ran.returncode, output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["logs", "redis", SITE, "--lines", "x"], "'--lines' / '-n': 'x' is not a whole number."),
        (["status", SITE, "--interval", "soon"], "'--interval': 'soon' is not a number."),
        (["status", SITE, "--interval", "0"], "0 is out of range; write 1 or more."),
        (["rollback", SITE, "far", "x"], "'N': 'x' is not a whole number."),
        (["usage", SITE, "--by", "colour"], "'--by': 'colour' is not one of 'client', 'model'"),
        (["usage", SITE, "--since", "soon"], "--since soon is not an age; write one such as 12h"),
        (["logs", "redis", SITE, "--since", "x"], "--since x is not an age; write one such as"),
        (["key", "rotate", "app", SITE, "--keep-days", "inf"], "inf is out of range; write 3650"),
        (["key", "new", "Web App"], "'Web App' is not a name of a client: use up to 63"),
        (["verify", SITE, "--json"], "--json works only with --hardening"),
        (["init", "x", "--host", "a b"], "--host 'a b' is text of 3 characters; write a host name"),
        (["init", "x"], "--host is required: give it as an option, or run init on a terminal"),
        (["model", "add", "m", "hf:a/b", "--service", "vlm"], "--service 'vlm' is not a service"),
        (["plan"], "Missing argument 'INVENTORY'."),
        (["key", "rotate"], "Missing argument 'NAME'."),
        (["plann"], "No such command 'plann'. Did you mean 'plan'?"),
    ],
)
def test_wrong_argument_is_an_error_in_one_sentence(
    site: Path, arguments: list[str], sentence: str
) -> None:
    status, output = refused(*arguments)
    assert status == 1 and sentence in output, output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["page", SITE, "-o", "binary"], "binary cannot be written to; choose another directory"),
        (["page", SITE, "--since", "x"], "--since x is not an age; write one such as 12h or 7d"),
        (["sbom", "create", SITE, "-o", "binary/x"], "binary/x cannot be written to; choose"),
        (["usage", SITE, "--csv", "--json"], "--csv and --json exclude each other; give one"),
        (["key", "new", "web", "/dev/zero"], "/dev/zero is not a file; give the inventory file"),
        (["tls", "ca", "binary"], "binary cannot be used: File exists"),
        (["model", "add", "m", "hf:a/b", "--lock", "binary"], "the lock file is not a text file;"),
        (["plan", "inventory"], "inventory is a directory; give an inventory file, such as"),
        (["deploy", "inventory"], "inventory is a directory; give an inventory file, such as"),
        (["plan", "nope.py"], "inventory file nope.py not found; give a file such as"),
        (["key", "new", "web", "inventory"], "Is a directory; give the inventory file, such as"),
        (["key", "new", "web", "binary"], "binary is not a text file; give the inventory file"),
        (["promote", "binary", "a", "b"], "binary is not a text file; give the inventory file"),
        (["compare", SITE, "a", "b", "--html", "none/x.html"], "cannot be written: the directory"),
        (
            ["verify", SITE, "--html", "inventory"],
            "inventory cannot be written; choose another",
        ),
        (["key", "revoke", "web", SITE], "has no record of 'web'; it has: app"),
        (["key", "new", "app", SITE], "to replace a key: llmhost key rotate app FILE"),
    ],
)
def test_missing_thing_is_named_with_what_to_do(
    site: Path, arguments: list[str], sentence: str
) -> None:
    (site / "binary").write_bytes(b"\x94\xff")
    status, output = refused(*arguments)
    assert status == 1 and sentence in output, output


def test_connection_data_is_checked_before_a_host_is_contacted(site: Path) -> None:
    hosts = [
        ("text", {"ssh_port": "22"}),
        ("flag", {"ssh_port": True}),
        ("typo", {"ssh_usr": "ann"}),
        ("sudo", {"_sudo": "yes"}),
    ]
    (site / SITE).write_text(f"llm_servers = {hosts!r}\n")
    status, output = said("plan", SITE)
    assert status == 1
    for sentence in (
        "text: ssh_port: is '22', which is text; write a port number from 1 to 65535",
        "flag: ssh_port: is True; write a port number from 1",
        "typo: ssh_usr: unknown key; did you mean ssh_user?",
        "sudo: _sudo: is 'yes'; write True or False",
    ):
        assert sentence in output, output
    (site / SITE).write_text('llm_servers = [("far", 5)]\n')
    status, output = said("plan", SITE)
    assert status == 1 and "a group is a list of hosts, each a name or" in output, output


@pytest.fixture
def server(site: Path) -> Iterator[socket.socket]:
    """The host of a site with a mistake; it listens where SSH should, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)
        mistake = {**HOST, "ssh_port": listener.getsockname()[1], "gateway_port": True}
        timeout = "'ssh_connect_retries': 0, 'ssh_paramiko_connect_kwargs': {'banner_timeout': 1}"
        text = f"llm_servers = ([('far', {mistake!r})], {{{timeout}, 'api_clients': {CLIENTS}}})\n"
        (site / SITE).write_text(text)
        yield listener


def is_contacted(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("config", [[], ["--config", str(ROOT / "config.py")]], ids=["none", "own"])
@pytest.mark.parametrize("program", [[LLMHOST, "deploy"], [sys.executable, "-m", "pyinfra"]])
def test_deploy_reports_mistakes_before_a_host_is_contacted(
    server: socket.socket, site: Path, program: list[str], config: list[str]
) -> None:
    options = [SITE, "deploy.py", *config] if "pyinfra" in program else [SITE, *config]
    (site / "deploy.py").symlink_to(ROOT / "deploy.py")
    if "pyinfra" in program and not config:
        (site / "config.py").symlink_to(ROOT / "config.py")
    ran = subprocess.run([*program, *options, "-y"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1 and "far: gateway_port: is True; write" in ran.stderr, ran.stderr
    assert "Traceback" not in ran.stderr and not is_contacted(server)


def test_host_with_mistakes_is_reached_by_other_commands_of_pyinfra(
    server: socket.socket, site: Path
) -> None:
    (site / "config.py").symlink_to(ROOT / "config.py")
    command = [sys.executable, "-m", "pyinfra", SITE, "exec", "--", "true"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as ran:
        server.settimeout(30)
        assert is_contacted(server)
        ran.kill()


def test_ssh_key_that_does_not_exist_is_named_and_fails_its_host_alone(site: Path) -> None:
    hosts = [("far", HOST), ("keyless", {**HOST, "ssh_port": 10, "ssh_key": "/nowhere/key"})]
    (site / SITE).write_text(f"llm_servers = ({hosts!r}, {{'api_clients': {CLIENTS}}})\n")
    status, output = said("plan", SITE)
    assert status == 1 and "far: no SSH connection (unable to connect to port 9" in output, output
    assert "keyless: ssh_key: no file /nowhere/key on this machine" in output, output


def test_host_or_repository_that_is_missing_is_named(site: Path) -> None:
    status, output = said("latency", SITE)
    assert status == 1 and "no host or group matches app_servers; the inventory has: far" in output
    status, output = said("backup", SITE)
    assert status == 1 and "far: backup_repository is not set; see llmhost docs" in output


@pytest.mark.parametrize("arguments", [["plan", SITE], ["usage", SITE], ["restart", "redis", SITE]])
def test_unreachable_host_is_reported_with_the_command_that_finds_the_cause(
    site: Path, arguments: list[str]
) -> None:
    status, output = said(*arguments)
    assert status == 1 and "unable to connect to port 9 on 127.0.0.1" in output, output
    assert f"run llmhost doctor {SITE} for the cause" in output and "no requests" not in output


def test_verify_reports_an_unreachable_host_without_an_error_for_each_check(site: Path) -> None:
    ran = subprocess.run([LLMHOST, "verify", SITE], capture_output=True, text=True)
    assert ran.returncode == 1
    # Once as a failure, in full: its traceback, its record, and with CI set also its summary.
    assert ran.stdout.count("far does not answer: ssh: connect to host 127.0.0.1 port 9") < 10
    assert "far does not answer\n" in ran.stdout and "CommandResult" not in ran.stdout
    selected = subprocess.run([LLMHOST, "verify", SITE, "--", "-k", "gpu"], capture_output=True)
    assert selected.returncode == 1, "checks that could not run are no success"


# Messages of pyinfra 3.10 (pyinfra/connectors/ssh.py) with those of paramiko, socket and OpenSSH.
@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "Authentication error (username=root) (Authentication failed.)",
            "SSH refuses the login (username=root, Authentication failed)",
        ),
        (
            "Could not resolve hostname ([Errno -2] Name or service not known)",
            "its name cannot be resolved (name or service not known)",
        ),
        (
            "SSH host key error (Host key for far does not match.)",
            "its SSH host key has changed (host key for far does not match)",
        ),
        (
            "No such private key file: ~/.ssh/far",
            "ssh_key: no file ~/.ssh/far on this machine",
        ),
        (
            "Invalid private key file: ~/.ssh/far",
            "ssh_key: ~/.ssh/far is no private key, or ssh_key_password is wrong",
        ),
    ],
)
def test_connection_failures_of_pyinfra_are_reworded(line: str, sentence: str) -> None:
    messages = Messages("site.py")
    # pyinfra pads the names to the same width.
    messages.lines = ["[other] Could not connect (timed out)", f"[far]   {line}"]
    (shown,) = messages.about("far")
    assert shown == f"{sentence}; run llmhost doctor site.py for the cause"


@pytest.mark.parametrize("name", [name for name in PLACES if name != "llmhost"])
def test_help_of_every_command_has_no_line_breaks_within_a_paragraph(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "900"})
    assert shown.exit_code == 0
    text = shown.output.partition("╭")[0]
    prose = [line.strip() for line in text.splitlines() if line.strip()]
    assert prose[0].startswith("Usage: ") and not re.search(r"[{\[][a-z]", prose[0])
    assert all(line.endswith((".", ":")) for line in prose[1:]), prose


def _commands() -> list[tuple[str, ...]]:
    """Every command, and every command of a group."""
    found: list[tuple[str, ...]] = []
    for name in PLACES:
        inner = getattr(command(name), "commands", {})
        found += [(name,), *((name, each) for each in inner)]
    return found


@pytest.mark.parametrize("names", _commands(), ids=" ".join)
def test_help_shows_the_text_of_each_option_as_written(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "400"})
    assert shown.exit_code == 0, shown.exception
    monkeypatch.setattr("llmhost.cli.app.readable", lambda made: made)
    made = command(names[0])
    for name in names[1:]:
        made = made.commands[name]
    missing = [each.help for each in made.params if each.help and each.help not in shown.output]
    assert missing == []


def test_version_is_that_of_the_package() -> None:
    status, output = refused("--version")
    assert status == 0 and output.startswith(f"llmhost {metadata.version('llmhost')}")


@pytest.mark.parametrize("arguments", [["--help"], ["nvidia"], ["nvidia", "--json"], ["docs"]])
def test_output_that_cannot_be_written_is_an_error_in_a_sentence(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run([LLMHOST, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 1
    assert ran.stderr == "error: the output cannot be written: No space left on device\n"


def test_page_is_printed_where_the_locale_is_not_utf_8() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    ran = subprocess.run([LLMHOST, "docs", "gateway"], capture_output=True, env=environment)
    assert ran.returncode == 0 and ran.stdout.startswith(b"# The gateway") and not ran.stderr
