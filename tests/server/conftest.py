"""Fixtures of the server tests: a connection, the declared settings, and a view from outside."""

import json
import shlex
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import pytest
import testinfra
from testinfra.host import Host

from llmhost.checks.command_log import watch
from llmhost.checks.gateway_client import Door, door_of
from llmhost.checks.nvidia import Nvidia, look
from llmhost.checks.outside import Outside
from llmhost.checks.recorder import Recorder
from llmhost.checks.remote_shell import RemoteShell
from llmhost.checks.report import summary
from llmhost.checks.starting import wait_for_boot, wait_for_services
from llmhost.inventory.role import Role
from llmhost.inventory.site import Site, SiteHost
from llmhost.inventory.site_reader import HostData, SiteError, no_site_rules, read_site
from llmhost.inventory.ssh import ssh_config, ssh_target
from llmhost.settings import Settings

Containers = Mapping[str, dict[str, Any]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options that `llmhost verify` passes."""
    group = parser.getgroup("llmhost")
    group.addoption("--site", help="JSON file: merged inventory data of each server, by name")
    group.addoption("--outside", help="command prefix that runs a command on another machine")
    group.addoption("--records", type=Path, help="file for a record of each check")
    group.addoption("--evidence", help="directory for evidence that a GPU is used")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("site"):
        config.pluginmanager.register(Recorder(config.getoption("records")), "llmhost-recorder")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """These tests require servers; `llmhost verify` passes them."""
    return True if config.getoption("site", None) is None else None


OF_APP_SERVERS = {"test_app_server", "test_firewall", "test_network"}
"""Modules with checks of application servers; the others check LLM servers and gateways."""
NOT_OF_GATEWAYS = {
    f"test_{component}"
    for component in ("container_toolkit", "docker", "egress", "gpu", "nvidia_driver", "stack")
}
"""Modules that do not apply to a gateway of other servers."""


@pytest.hookimpl(tryfirst=True)  # pytest then groups them by server
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Checks that wait for what earlier ones have started come last."""
    items.sort(key=lambda item: item.get_closest_marker("waits") is not None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_name" in metafunc.fixturenames:
        site = _site(metafunc.config.getoption("site"))
        module = metafunc.module.__name__.rpartition(".")[2]
        names = [name for name, host in site.items() if _is_for(module, host.role)]
        metafunc.parametrize("server_name", names, scope="session", ids=str)


def _is_for(module: str, role: Role) -> bool:
    if role is Role.APP_SERVER:
        return module in OF_APP_SERVERS
    return role is Role.LLM_SERVER or module not in NOT_OF_GATEWAYS


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes: all checks of a server run in one of them."""
    from xdist.scheduler import LoadScopeScheduling

    names = _site(config.getoption("site"))

    class OfOneServer(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return server_of(nodeid, names)

    return OfOneServer(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The summary of `llmhost verify`: proven checks, and checks that were not made."""
    if terminalreporter.config.getoption("site") is None:
        return
    terminalreporter.section("proof")
    stats = terminalreporter.stats
    for line in summary(stats.get("passed", []), stats.get("skipped", [])):
        terminalreporter.write_line(line)


def server_of(nodeid: str, names: Iterable[str]) -> str:
    """Which of these servers a check is for, by its id: `file::test[server-case]`."""
    cases = f"-{nodeid.partition('[')[2].removesuffix(']')}-"
    return max((name for name in names if f"-{name}-" in cases), key=len, default="")


@cache
def _site(path: str) -> Site:
    declared: dict[str, dict[str, Any]] = json.loads(Path(path).read_text())
    hosts = [HostData(name, data, data.get("_groups", ())) for name, data in declared.items()]
    try:
        return read_site(hosts, site_rules=no_site_rules)
    except SiteError as error:
        raise pytest.UsageError(*error.sentences) from None


def site_of(config: pytest.Config) -> Site:
    """All servers of this run."""
    return _site(config.getoption("site"))


@pytest.fixture(scope="session")
def site_host(server_name: str, pytestconfig: pytest.Config) -> SiteHost:
    """The server as the inventory declares it."""
    return _site(pytestconfig.getoption("site"))[server_name]


@pytest.fixture(scope="session")
def role(site_host: SiteHost) -> Role:
    """The role of the server."""
    return site_host.role


@pytest.fixture(scope="session")
def settings(site_host: SiteHost) -> Settings:
    """The same settings as in a deploy."""
    return site_host.settings


@pytest.fixture(scope="session")
def client_keys(site_host: SiteHost) -> list[str]:
    """Digests of the keys of all clients of the inventory, also of hosts beyond this run."""
    return list(site_host.data.get("_client_keys", ()))


@pytest.fixture(scope="session")
def ssh_config_path(site_host: SiteHost) -> Iterator[Path]:
    """An ssh_config for the server, with one connection for all commands."""
    # pytest's own directory contains the operator's name: too long for a path of a socket.
    with TemporaryDirectory(prefix="llmhost-") as directory:
        yield written_ssh_config(site_host, Path(directory))


@pytest.fixture(scope="session")
def ssh_name(site_host: SiteHost) -> str:
    """What OpenSSH is asked for, with this ssh_config, to reach the server."""
    return ssh_target(site_host.name, site_host.data)


def written_ssh_config(site_host: SiteHost, directory: Path) -> Path:
    """An ssh_config for a host of the inventory, in this directory."""
    config = directory / "config"
    config.write_text(ssh_config(site_host.name, site_host.data, directory))
    return config


@pytest.fixture(scope="session")
def tell(server_name: str, pytestconfig: pytest.Config) -> Callable[[str], None]:
    """A function that shows what the run waits for."""
    recorder = pytestconfig.pluginmanager.get_plugin("llmhost-recorder")
    return partial(recorder.waiting, server_name) if recorder else lambda _: None


@pytest.fixture(scope="session")
def host(
    server_name: str,
    ssh_name: str,
    site_host: SiteHost,
    ssh_config_path: Path,
    tell: Callable[[str], None],
) -> Iterator[Host]:
    """The server, through testinfra, once it has booted."""
    sudo = bool(site_host.data.get("_sudo"))
    local = server_name == "@local"
    query = f"ssh_config={quote(str(ssh_config_path))}"
    place = "local://" if local else f"ssh://{quote(ssh_name)}?{query}"
    found = testinfra.get_host(place, sudo=sudo)
    if problem := _no_answer(found):
        pytest.fail(f"{server_name} does not answer: {problem}", pytrace=False)
    with ExitStack() as stack:
        if not local:
            shell = stack.enter_context(closing(RemoteShell(ssh_config_path, ssh_name)))
            backend: Any = found.backend
            backend.run_ssh = lambda command: _result(backend, command, shell)
        wait_for_boot(found, tell)
        watch(found, server_name)
        yield found


def _no_answer(host: Host) -> str:
    """Why a host cannot be reached, if it cannot."""
    try:
        host.run("true")
    except RuntimeError as error:  # ssh ended with 255
        return _said(error)
    return ""


def _result(backend: Any, command: str, shell: RemoteShell) -> Any:
    """What a command did, as testinfra represents it."""
    status, output, errors = shell.run(command)
    return backend.result(status, backend.encode(command), output, errors)


def _said(error: RuntimeError) -> str:
    """The error message of ssh; testinfra raises with the complete result of the command."""
    result = error.args[0] if error.args else error
    return str(getattr(result, "stderr", result)).strip()


@pytest.fixture(scope="session")
def stopped(host: Host, settings: Settings) -> dict[str, str]:
    """By whom and when services were stopped with `llmhost stop`, by service."""
    place = shlex.quote(settings.stack.stopped)
    marks = host.run(f"cd {place} 2>/dev/null && grep -H -m1 . -- *").stdout.splitlines()
    found = dict(mark.split(":", 1) for mark in marks)
    return {name: told for name, told in found.items() if name in settings.services}


@pytest.fixture(scope="session")
def address(site_host: SiteHost, ssh_config_path: Path) -> str:
    """The server's address as clients use it."""
    return address_of(site_host, ssh_config_path)


def address_of(site_host: SiteHost, ssh_config_path: Path) -> str:
    """The address behind a host's name in the inventory, which may be one of an ssh_config."""
    if site_host.name == "@local":
        return "127.0.0.1"
    target = ssh_target(site_host.name, site_host.data)
    asked = ["ssh", "-G", "-F", str(ssh_config_path), target]
    found = subprocess.run(asked, capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in found.stdout.splitlines() if " " in line)["hostname"]


@pytest.fixture(scope="session")
def door(server_name: str, address: str, settings: Settings) -> Door:
    """The gateway, as seen from another machine."""
    return door_of(server_name, address, settings)


@pytest.fixture(scope="session")
def evidence(pytestconfig: pytest.Config) -> Path | None:
    """Path of a file of evidence."""
    directory = pytestconfig.getoption("evidence")
    return Path(directory) if directory else None


@pytest.fixture(scope="session")
def outside(server_name: str, pytestconfig: pytest.Config) -> Iterator[Outside]:
    """Runs a command on another machine: the controller, or the machine of --outside."""
    if server_name == "@local" and not pytestconfig.getoption("outside"):
        pytest.skip("the controller is the server itself: specify another machine with --outside")
    with closing(Outside(shlex.split(pytestconfig.getoption("outside") or ""))) as outside:
        yield outside


@pytest.fixture(scope="session")
def hardware(host: Host, settings: Settings) -> Nvidia:
    """The server's NVIDIA hardware, and what NVML reports at the start."""
    return look(host, settings)


@pytest.fixture(scope="session")
def started(host: Host, settings: Settings, tell: Callable[[str], None]) -> None:
    """The services have started, or have failed to."""
    if settings.services:
        wait_for_services(host, settings.stack, tell)


@pytest.fixture(scope="session")
def all_containers(host: Host, settings: Settings, started: None) -> Containers:
    """All containers of the project, including stopped ones, from `docker inspect`; none where no
    service is declared, as on a gateway without Docker."""
    if not settings.services:
        return {}
    label = f"label=com.docker.compose.project={settings.stack.project}"
    ids = host.check_output(f"docker ps --all --quiet --filter {label}").split()
    found = json.loads(host.check_output(f"docker inspect {' '.join(ids)}")) if ids else []
    return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}
