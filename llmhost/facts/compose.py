"""The state of a Docker Compose project."""

import json
import shlex
from collections.abc import Mapping, Sequence

from pyinfra.api import FactBase

from llmhost.docker.compose import SECOND, Container, Limits, ProjectNetwork, ProjectState
from llmhost.docker.confinement import Confinement
from llmhost.facts.files import PathStates, parse_states
from llmhost.facts.images import DOCKER, inspect_command, parse_images
from llmhost.facts.shell import at_once
from llmhost.resources import script

_LABEL = '{{{{index .Config.Labels "com.docker.compose.{}"}}}}'
_HEALTH = "{{if .State.Health}}{{.State.Health.Status}}{{end}}"
_FIELDS = ["{{.Name}}", _LABEL.format("service"), _LABEL.format("config-hash"), "{{.Image}}"]
_NETWORKS = "{{range $name, $it := .NetworkSettings.Networks}}{{$name}}={{$it.NetworkID}} {{end}}"
# These are the names of Docker's Go fields. With the names of its JSON, a container without a
# health check is an error.
_CPUS = ("NanoCPUs", "CPUQuota", "CPUShares", "CpusetCpus")
_LIMITS = [f"{{{{.HostConfig.{key}}}}}" for key in ("RestartPolicy.Name", "PidsLimit", "Memory")]
_LIMITS += ["{{.HostConfig." + "}},{{.HostConfig.".join(_CPUS) + "}}"]
# Process 1 of a container with devices, such as GPUs by CDI. A process that joins a paused
# container is paused, too.
_GIVEN = "{{if and .HostConfig.DeviceRequests (not .State.Paused)}}{{.State.Pid}}{{end}}"
_STATE = ["{{.State.Status}}", _HEALTH, _NETWORKS, *_LIMITS]
_CONFINED = "[{{json .HostConfig}},{{json .Mounts}},{{json .Config.User}}]"
_CONTAINER = "|".join(["container", *_FIELDS, *_STATE, _CONFINED, _GIVEN])
# Compose recognizes its networks by these labels.
_NETWORK = '{{.Id}} {{.Name}} {{index .Labels "com.docker.compose.project"}}'
_NETWORK += ' {{index .Labels "com.docker.compose.network"}}'
_NETWORK += ' bridge={{with index .Options "com.docker.network.bridge.name"}}{{.}}{{end}}'
_LISTED = '{{.ID}}|{{.Names}}|{{.Label "com.docker.compose.project"}}'
_LISTED += '|{{.Label "com.docker.compose.oneoff"}}'


class ComposeProject(FactBase[ProjectState]):
    """Files, configurations, containers, images, the network and the stopped services of a project,
    in one round trip.

    Containers of `docker compose run` are excluded, because an operator created them temporarily,
    unless an interrupted deploy did. A container that was created by hand with a name in
    `containers` is included. `questions` are Python programs to run in containers, by container.
    """

    @staticmethod
    def default() -> ProjectState:
        return ProjectState({}, {}, (), {})

    def command(
        self,
        project: str,
        directory: str,
        images: Sequence[str],
        containers: Sequence[str] = (),
        questions: Mapping[str, str] | None = None,
    ) -> str:
        file, services = f"{directory}/compose.yaml", f"{directory}/services"
        # Compose reads its own variables, such as the project's name, from .env.
        paths = [directory, services, file, f"{directory}/.env"]
        ours = (
            f"awk -F'|' -v project={project} -v names={shlex.quote(f' {shlex.join(containers)} ')}"
            f""" '($3 == project && ($4 == "False" || $2 ~ /{SECOND}$/))"""
            """ || index(names, " " $2 " ") { print $1 }'"""
        )
        return at_once(
            PathStates().command(paths, under=services),
            f"docker compose --file {shlex.quote(file)} config --hash '*' 2>/dev/null"
            " | sed 's/^/config /'",
            f"{DOCKER} network inspect --format 'network {_NETWORK}' {project}_default 2>/dev/null",
            f"{DOCKER} ps --all --format '{_LISTED}' 2>/dev/null | {ours}"
            f" | xargs -r {DOCKER} inspect --format '{_CONTAINER}' | {script('docker/cut_off.sh')}",
            *(script("docker/question.sh", *question) for question in (questions or {}).items()),
            inspect_command(images),
            f"cd {shlex.quote(f'{directory}/stopped')} 2>/dev/null &&"
            " grep -H -m1 . -- * 2>/dev/null | sed 's/^/stopped|/'",
        )

    def process(self, output: list[str]) -> ProjectState:
        configs = [line.split()[1:3] for line in output if line.startswith("config ")]
        containers = [line for line in output if line.startswith("container|")]
        networks = [line.split()[1:] for line in output if line.startswith("network ")]
        settings = [line.split("|", 2)[1:] for line in output if line.startswith("setting|")]
        failed = [line.split("|", 2)[1:] for line in output if line.startswith("failed|")]
        marks = [line.split("|", 1)[1] for line in output if line.startswith("stopped|")]
        kinds = ("config ", "container|", "image|", "network ", "setting|", "failed|", "stopped|")
        return ProjectState(
            paths=parse_states([line for line in output if not line.startswith(kinds)]),
            configs=dict(configs),
            containers=tuple(map(_container, containers)),
            images=parse_images(output),
            network=_network(*networks[0]) if networks else None,
            settings={
                container: [sentence for name, sentence in settings if name == container]
                for container, _ in settings
            },
            failed=dict(failed),
            stopped=dict(mark.split(":", 1) for mark in marks),
        )


def _container(line: str) -> Container:
    fields = line.split("|", 12)
    path, service, config, image, state, health, networks, *limits, rest = fields[1:]
    confined, _, cut_off = rest.rpartition("|")
    host, mounts, user = json.loads(confined)
    pairs = dict(network.split("=", 1) for network in networks.split())
    name = path.lstrip("/")
    return Container(
        name,
        *("" if name.endswith(SECOND) else service, config, image, state, health),
        cut_off=bool(cut_off),
        networks=pairs,
        limits=_limits(*limits),
        confinement=Confinement(host, mounts, frozenset(pairs), user),
    )


def _network(identity: str, called: str, *rest: str) -> ProjectNetwork:
    *labels, bridge = rest
    return ProjectNetwork(identity, called == "_".join(labels), bridge.removeprefix("bridge="))


def _limits(restart: str, pids: str, memory: str, cpus: str) -> Limits:
    set_cpus = tuple(each for each in cpus.split(",") if each not in ("", "0"))
    return Limits(restart, _count(pids), _count(memory), set_cpus)


def _count(text: str) -> int:
    """A limit; 0 where there is none (`<nil>`)."""
    return int(text) if text.lstrip("-").isdecimal() else 0
