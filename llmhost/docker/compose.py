"""A Docker Compose project as declared, compared with its files and containers on a host.

Pure: the state comes from facts/compose.py, the commands are run by operations/compose.py.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llmhost.docker.image import ImageState
from llmhost.resources import script
from llmhost.system.files import UNPACK, Absent, Directory, Entry, File, PathState, differences


@dataclass(frozen=True)
class Limits:
    """What `docker update` changes in a container that exists, as `docker inspect` shows it. `cpus`
    are its four ways to limit processors, empty or 0 where there is no limit."""

    restart: str = "unless-stopped"
    pids: int = 512
    memory: int = 0
    cpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Project:
    """What shall run.

    `root` is the text of compose.yaml, which includes one file of services/ for each of `services`,
    by name. `images` are the services' image references. Services must be healthy after
    `start_timeout_seconds`. Only root may read the files of services that are in `private`.
    `limits` are those that `docker update` can change; of services without, none are compared.
    `questions` are Python programs by service: run in its container, each says which settings were
    changed in the running service.
    """

    name: str
    directory: str
    root: str
    services: Mapping[str, str]
    images: Mapping[str, str]
    start_timeout_seconds: int
    private: frozenset[str] = frozenset()
    limits: Mapping[str, Limits] = field(default_factory=dict)
    questions: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        return f"{self.directory}/compose.yaml"

    @property
    def network(self) -> str:
        """The network that all services share, by the name that Compose gives it."""
        return f"{self.name}_default"

    @property
    def files(self) -> tuple[File, ...]:
        """All files; none at all when there is no service, which Compose does not allow."""
        parts = [
            File(self.service_file(name), text, "0600" if name in self.private else "0644")
            for name, text in self.services.items()
        ]
        return (File(self.file, self.root), *parts) if parts else ()

    @property
    def candidate(self) -> str:
        """Directory where new files wait until Compose has found them valid."""
        return f"{self.directory}/.candidate"

    def service_file(self, service: str) -> str:
        return f"{self.directory}/services/{service}.yaml"

    def container(self, service: str) -> str:
        """Name of a service's container."""
        return f"{self.name}-{service}-1"


@dataclass(frozen=True)
class Container:
    """A container of the project, or one that has the name of such; then `service` is empty.

    `config` is Compose's hash of the service it was made from, `image` an id, `state` and `health`
    as Docker names them; `health` is empty without a check. `cut_off` tells that it was given GPUs
    and may not open their devices any more. `networks` are ids by name.
    """

    name: str
    service: str
    config: str
    image: str
    state: str
    health: str
    cut_off: bool = False
    networks: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()


@dataclass(frozen=True)
class ProjectNetwork:
    """A network on the host; `made_by_compose` tells that Compose takes it for its own."""

    id: str
    made_by_compose: bool


@dataclass(frozen=True)
class ProjectState:
    """What is on the host: files by path, Compose's hash of each service in those files, the
    project's containers, the declared images that are there, and the project's network. `settings`
    are by container, in sentences, those that were changed in the service itself."""

    paths: Mapping[str, PathState]
    configs: Mapping[str, str]
    containers: tuple[Container, ...]
    images: Mapping[str, ImageState]
    network: ProjectNetwork | None = None
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ComposePlan:
    """What has to be done, and why. `remake` names services whose containers Compose would leave
    as they are, `strays` containers and `stray_network` a network that stand in its way. No
    reasons: nothing to do."""

    entries: tuple[Entry, ...]
    remake: tuple[str, ...]
    reasons: tuple[str, ...]
    strays: tuple[str, ...] = ()
    stray_network: str = ""


def plan(project: Project, found: ProjectState) -> ComposePlan:
    """Compare what is declared with what runs."""
    entries = _entries(project, found)
    reasons = [*differences(entries, found.paths).values()]
    reasons += [
        f"container {container.name} "
        + ("is not declared" if container.service else "was not made by Compose")
        for container in found.containers
        if container.service not in project.services
    ]
    strays = tuple(each.name for each in found.containers if not each.service)
    foreign = bool(project.services and found.network and not found.network.made_by_compose)
    if foreign:
        reasons.append(f"network {project.network} was not made by Compose")
    remake = []
    for service in project.services:
        containers = [each for each in found.containers if each.service == service]
        reasons += _service_reasons(project, service, containers, found)
        if containers and (
            foreign
            or len(containers) > 1
            or containers[0].health == "unhealthy"
            or any(_beyond_compose(project, containers[0], found))
        ):
            remake.append(service)
    network = project.network if foreign else ""
    return ComposePlan(entries, tuple(remake), tuple(reasons), strays, network)


def _entries(project: Project, found: ProjectState) -> tuple[Entry, ...]:
    """Declared files, and the absence of all others that Compose could be given by mistake."""
    declared = {file.path for file in project.files}
    others = tuple(
        Absent(path)
        for path, state in sorted(found.paths.items())
        if path not in declared and state.kind != "directory"
    )
    directories = (Directory(project.directory), Directory(f"{project.directory}/services"))
    return (*(directories if declared else ()), *project.files, *others)


def _service_reasons(
    project: Project, service: str, containers: Sequence[Container], found: ProjectState
) -> Iterator[str]:
    if len(containers) != 1:
        times = "does not run" if not containers else f"runs {len(containers)} times"
        yield f"service {service} {times}"
        return
    (container,) = containers
    image = found.images.get(project.images[service])
    if container.config != found.configs.get(service):
        yield f"service {service} runs with another configuration"
    if image and container.image != image.id:
        yield f"service {service} runs another image than {project.images[service]}"
    if container.state != "running":
        yield f"service {service} is {container.state}"
    elif container.health not in ("", "healthy"):
        yield f"service {service} is {container.health}"
    yield from _beyond_compose(project, container, found)


def _beyond_compose(project: Project, container: Container, found: ProjectState) -> Iterator[str]:
    """What is wrong with a container that Compose would take no notice of."""
    service = container.service
    if container.cut_off:
        yield (
            f"service {service} may not open its GPUs any more, as happens when systemd reloads: "
            "its container is made anew"
        )
    if container.name != (wanted := project.container(service)):
        yield f"the container of {service} is called {container.name}, not {wanted}"
    # By id: a network that was made anew under its name is not the one that a container knows.
    if container.networks.get(project.network) != (found.network.id if found.network else None):
        yield f"service {service} is not on the network {project.network}"
    for sentence in found.settings.get(container.name, ()):
        yield f"service {service} has a setting that was changed by hand: {sentence}"
    if (limits := project.limits.get(service)) and (changed := _updated(limits, container.limits)):
        yield f"service {service} runs with other limits than declared: {', '.join(changed)}"


def _updated(wanted: Limits, found: Limits) -> list[str]:
    """Names of the limits that differ."""
    # Docker drops limits that a host's kernel can not keep, with no more than a warning.
    dropped = (wanted.pids, 0), (wanted.memory, 0)
    differ = {
        "restart policy": found.restart != wanted.restart,
        "processes": found.pids not in dropped[0],
        "memory": found.memory not in dropped[1],
        "processors": found.cpus != wanted.cpus,
    }
    return [name for name, differs in differ.items() if differs]


def apply_script(project: Project, todo: ComposePlan) -> str:
    """Shell script that brings the project about; new files come archived on stdin.

    They replace the old ones only when Compose finds them valid. When a service does not become
    healthy, its last words are shown and the script fails.
    """
    absent = [entry.path for entry in todo.entries if isinstance(entry, Absent)]
    lines = ["set -e"]
    if not project.services:
        lines += [f"docker compose --project-name {project.name} down --remove-orphans"]
        return "\n".join([*lines, _remove([*absent, project.candidate])])
    compose = f"docker compose --file {shlex.quote(project.file)}"
    lines += [*_activate_files(project), _remove([*absent, project.candidate])]
    if todo.strays:
        lines.append(f"docker rm --force {shlex.join(todo.strays)}")
    if todo.remake:
        lines.append(f"{compose} rm --stop --force {shlex.join(todo.remake)}")
    if todo.stray_network:
        lines.append(f"docker network rm {shlex.quote(todo.stray_network)}")
    return "\n".join(
        [*lines, start_script(project.name, project.file, project.start_timeout_seconds)]
    )


def start_script(name: str, file: str, timeout_seconds: int) -> str:
    """Shell script that lets a project's containers be those of its file, and healthy.

    When a service does not become healthy, its last words are shown and the script fails.
    """
    up = f"up --detach --remove-orphans --wait --wait-timeout {timeout_seconds}"
    compose = f"docker compose --file {shlex.quote(file)}"
    return f"{compose} {up} || {script('docker/last_words.sh', name)}"


def candidate_path(project: Project, file: File) -> str:
    """Where a new file waits until Compose has found it valid."""
    return project.candidate + file.path.removeprefix(project.directory)


def _activate_files(project: Project) -> Iterator[str]:
    candidate, directory = shlex.quote(project.candidate), shlex.quote(project.directory)
    services = shlex.quote(f"{project.directory}/services")
    yield f"rm -rf {candidate}"
    yield f"install -d -m 0755 -o root -g root {directory} {services}"
    yield f"install -d -m 0755 -o root -g root {candidate} {candidate}/services"
    yield UNPACK
    yield f"(cd {candidate} && docker compose --file compose.yaml config --quiet)"
    for file in project.files:
        yield f"mv -fT {shlex.quote(candidate_path(project, file))} {shlex.quote(file.path)}"


def _remove(paths: Sequence[str]) -> str:
    return f"rm -rf {shlex.join(paths)}"
