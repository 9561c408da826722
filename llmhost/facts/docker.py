"""Docker Engine on a host."""

import base64
import shlex
from dataclasses import dataclass, field

from pyinfra.api import FactBase

from llmhost.docker.containerd import EngineRoots
from llmhost.facts.apt import InstalledPackages, RepositoryFiles, RepositoryState
from llmhost.facts.files import PathStates, parse_states
from llmhost.resources import script
from llmhost.system.apt import PackageDatabase
from llmhost.system.files import PathState


@dataclass(frozen=True)
class EngineState:
    """The host's distribution from os-release, and the state of the engine's packages and of
    Docker's repository."""

    distribution: str = ""
    version: str = ""
    codename: str = ""
    packages: PackageDatabase = field(default_factory=lambda: PackageDatabase({}))
    repository: RepositoryState = field(default_factory=lambda: RepositoryState({}, b""))


class Engine(FactBase[EngineState]):
    """The state that shows whether the engine's packages are as declared."""

    @staticmethod
    def default() -> EngineState:
        return EngineState()

    def command(self, packages: list[str], key: str, paths: list[str]) -> str:
        return (
            '. /etc/os-release; echo "$ID|$VERSION_ID|$VERSION_CODENAME";'
            f" {InstalledPackages().command(packages)}; echo repository;"
            f" {RepositoryFiles().command(key, paths)}"
        )

    def process(self, output: list[str]) -> EngineState:
        distribution, version, codename = output[0].split("|")
        middle = output.index("repository")
        return EngineState(
            distribution,
            version,
            codename,
            InstalledPackages().process(output[1:middle]),
            RepositoryFiles().process(output[middle + 1 :]),
        )


@dataclass(frozen=True)
class DaemonFiles:
    """The text of daemon.json and of the record of our keys; empty if a file does not exist.
    `running`: the daemon runs. `bridge_filter`: the host supports HARDENED_BY_BRIDGE."""

    config: str = ""
    record: str = ""
    states: dict[str, PathState] = field(default_factory=dict)
    running: bool = False
    bridge_filter: bool = False


class DaemonConfig(FactBase[DaemonFiles]):
    """daemon.json, and the file that records which of its keys are ours."""

    @staticmethod
    def default() -> DaemonFiles:
        return DaemonFiles()

    def command(self, config: str, record: str) -> str:
        contents = (
            f"base64 -w0 {shlex.quote(path)} 2>/dev/null; echo" for path in (config, record)
        )
        host = script("docker/host.sh")
        return "; ".join([*contents, PathStates().command([config, record]), host])

    def process(self, output: list[str]) -> DaemonFiles:
        config, record, *more = output
        words = ("running", "bridge-filter")
        states = parse_states([line for line in more if line not in words])
        return DaemonFiles(_text(config), _text(record), states, *(each in more for each in words))


class EngineRootsFact(FactBase[EngineRoots]):
    """Where Docker and containerd keep their data, compared with the declared directories."""

    @staticmethod
    def default() -> EngineRoots:
        return EngineRoots()

    def command(self, docker: str, containerd: str) -> str:
        return script("docker/roots.sh", docker, containerd, functions="docker/functions.sh")

    def process(self, output: list[str]) -> EngineRoots:
        config, root, *more = output
        moves = [line.split(" ", 2) for line in more if line.startswith("moves ")]
        found = {program: directory for _, program, directory in moves}
        return EngineRoots(_text(config), root, found, "busy" in more, "swarm" in more)


class OtherContainers(FactBase[list[str]]):
    """Containers that are not llmhost's, if the engine is installed from this package."""

    @staticmethod
    def default() -> list[str]:
        return []

    def command(self, package: str) -> str:
        return script("docker/other_engine.sh", package, "llmhost")

    def process(self, output: list[str]) -> list[str]:
        return list(output)


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")
