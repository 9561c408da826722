"""A Docker Compose project as declared, compared with its files and containers on a host.

Pure: the state comes from facts/compose.py, the commands are run by operations/compose.py.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llmhost.docker.confinement import Confinement, additions, on_host_network
from llmhost.docker.image import ImageState
from llmhost.resources import script
from llmhost.system.files import UNPACK, Absent, Directory, Entry, File, PathState, differences

SECOND = "-beside"
"""How the name of a container ends that answers while the first one is replaced."""


@dataclass(frozen=True)
class Limits:
    """Limits that `docker update` can change, as in `docker inspect`. `cpus` are its four options
    that limit processors, empty or 0 without a limit."""

    restart: str = "unless-stopped"
    pids: int = 512
    memory: int = 0
    cpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class StandIn:
    """How a second container of a service answers while the first one is replaced.

    `port` is the service's on the loopback, `container_port` the same in its container. nginx's
    configuration is in `nginx`, and the shell command `loaded` prints the digest of the one that
    runs. At least `memory_bytes` must be free, and `gpu_bytes` by GPU.
    """

    port: int
    container_port: int
    nginx: str
    loaded: str
    memory_bytes: int = 0
    gpu_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """The declared project.

    `root` is the text of compose.yaml, which includes one file of services/ for each of `services`,
    by name. `images` are the services' image references. Services must be healthy after
    `start_timeout_seconds`. Only root may read the files of services that are in `private`.
    `bridge` is the name of the network's bridge on the host; empty: Docker's choice. `limits` are
    those that `docker update` can change; for services without an entry, they are not compared.
    `questions` are Python programs by service, which print the settings that were changed in the
    running service; they run in its container. `stand_ins` are for services that a deploy replaces
    without an interruption; `alone` says of others that clients reach why it does not.
    """

    name: str
    directory: str
    root: str
    services: Mapping[str, str]
    images: Mapping[str, str]
    start_timeout_seconds: int
    bridge: str = ""
    private: frozenset[str] = frozenset()
    limits: Mapping[str, Limits] = field(default_factory=dict)
    questions: Mapping[str, str] = field(default_factory=dict)
    stand_ins: Mapping[str, StandIn] = field(default_factory=dict)
    alone: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        return f"{self.directory}/compose.yaml"

    @property
    def network(self) -> str:
        """Name of the network of all services in Compose."""
        return f"{self.name}_default"

    @property
    def files(self) -> tuple[File, ...]:
        """All files; none without services, because Compose requires at least one."""
        parts = [
            File(self.service_file(name), text, "0600" if name in self.private else "0644")
            for name, text in self.services.items()
        ]
        return (File(self.file, self.root), *parts) if parts else ()

    @property
    def stopped(self) -> str:
        """Directory with a file for each service that an operator stopped."""
        return f"{self.directory}/stopped"

    def mark(self, service: str) -> str:
        """The file that says that an operator stopped a service."""
        return f"{self.stopped}/{service}"

    @property
    def candidate(self) -> str:
        """Directory of new files until Compose has validated them."""
        return f"{self.directory}/.candidate"

    @property
    def earlier(self) -> str:
        """Directory of the files of services while their containers are replaced."""
        return f"{self.directory}/.earlier"

    def service_file(self, service: str) -> str:
        return f"{self.directory}/services/{service}.yaml"

    def container(self, service: str) -> str:
        """Name of a service's container."""
        return f"{self.name}-{service}-1"

    def second_container(self, service: str) -> str:
        """Name of the container that answers while the first one is replaced."""
        return f"{self.name}-{service}{SECOND}"


@dataclass(frozen=True)
class Container:
    """A container of the project; `service` is empty if it only has such a name.

    `config` is Compose's hash of its service, `image` an id, `state` and `health` as in Docker;
    `health` is empty without a check. `cut_off`: it has GPUs and can no longer open their devices.
    `networks` are ids by name.
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
    confinement: Confinement = field(default_factory=Confinement)


@dataclass(frozen=True)
class ProjectNetwork:
    """A network on the host; `made_by_compose` if it has Compose's labels. `bridge` is empty if
    Docker chose its name."""

    id: str
    made_by_compose: bool
    bridge: str = ""


@dataclass(frozen=True)
class ProjectState:
    """What is on the host: files by path, Compose's hash of each service in those files, the
    project's containers, the declared images that are there, and the project's network. `settings`
    are sentences about settings that were changed in the running service, by container; `failed`
    says why they could not be read. `stopped` says by whom and when a service was stopped, by
    service."""

    paths: Mapping[str, PathState]
    configs: Mapping[str, str]
    containers: tuple[Container, ...]
    images: Mapping[str, ImageState]
    network: ProjectNetwork | None = None
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    stopped: Mapping[str, str] = field(default_factory=dict)

    def notes(self, services: Iterable[str]) -> list[str]:
        """Sentences about those of the services that an operator stopped."""
        return [self._note(name) for name in services if name in self.stopped]

    def _note(self, service: str) -> str:
        mark = self.stopped[service]
        until = "that ends" if BY_TRAINING in mark else f"`llmhost start {service} INVENTORY`"
        return f"service {service} was {mark}, and stays so until {until}"


@dataclass(frozen=True)
class ComposePlan:
    """What to do, and why. `remake` are services whose containers Compose would not recreate;
    `beside` are those that a second container replaces without an interruption; `strays` are
    containers, and `stray_network` a network, that Compose does not replace. `unknown` says what
    could not be read. No reasons and nothing unknown: nothing to do."""

    entries: tuple[Entry, ...]
    remake: tuple[str, ...]
    reasons: tuple[str, ...]
    strays: tuple[str, ...] = ()
    stray_network: str = ""
    unknown: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


BY_TRAINING = " by the training "
"""In the mark of a service that is stopped during a training (files/training/host.py)."""


def updated(project: Project, found: ProjectState, services: Iterable[str]) -> list[str]:
    """Those of the services whose containers have another image than the declared one."""
    wanted = {name: found.images.get(project.images[name]) for name in services}
    return [
        name
        for name, image in wanted.items()
        if any(
            each.service == name and (image is None or each.image != image.id)
            for each in found.containers
        )
    ]


def plan(project: Project, found: ProjectState) -> ComposePlan:
    """Compare the declared project with the host."""
    entries = _entries(project, found)
    reasons = [*differences(entries, found.paths).values()]
    reasons += [
        f"container {container.name} {_why_stray(container)}"
        for container in found.containers
        if container.service not in project.services
    ]
    strays = tuple(each.name for each in found.containers if not each.service)
    unfit = [*_network_reasons(project, found.network)] if project.services else []
    reasons += unfit
    remake, unknown = [], list[str]()
    for service in project.services:
        containers = [each for each in found.containers if each.service == service]
        if service in found.stopped:
            reasons += _stopped_reasons(service, containers, found)
            remake += [service] if containers and unfit else []
            continue
        own = [*_service_reasons(project, service, containers, found)]
        reasons += own
        # A container that is started or recreated is read by the next run.
        if not own and (reason := found.failed.get(containers[0].name)):
            unknown.append(f"the settings of service {service} could not be read: {reason}")
        if containers and (
            unfit
            or len(containers) > 1
            or containers[0].health == "unhealthy"
            or any(_beyond_compose(project, containers[0], found))
        ):
            remake.append(service)
    network = project.network if unfit else ""
    beside = tuple(
        name
        for name in _recreated(project, found)
        if name in project.stand_ins
        and name not in (*remake, *found.stopped)
        and _answers(name, found)
    )
    return ComposePlan(
        entries, tuple(remake), tuple(reasons), strays, network, tuple(unknown), beside
    )


def _why_stray(container: Container) -> str:
    if container.name.endswith(SECOND):
        return "was left by an interrupted deploy"
    return "is not declared" if container.service else "was not created by Compose"


def _answers(service: str, found: ProjectState) -> bool:
    """Whether the service has one container, which is healthy."""
    states = [each.health for each in found.containers if each.service == service]
    return states == ["healthy"]


def _network_reasons(project: Project, found: ProjectNetwork | None) -> Iterator[str]:
    """Why the network must be replaced; Compose 2.26 ignores changed options."""
    if found and not found.made_by_compose:
        yield f"network {project.network} was not created by Compose"
    elif found and found.bridge != project.bridge:
        bridge = f"is called {found.bridge}" if found.bridge else "has a generated name"
        wanted = project.bridge or "a generated one"
        yield f"the bridge of network {project.network} {bridge}, not {wanted}"


def _entries(project: Project, found: ProjectState) -> tuple[Entry, ...]:
    """Declared files, and the absence of all others in their directories."""
    declared = {file.path for file in project.files}
    others = tuple(
        Absent(path)
        for path, state in sorted(found.paths.items())
        if path not in declared and state.kind != "directory"
    )
    marks = (Absent(project.mark(name)) for name in found.stopped if name not in project.services)
    directories = (Directory(project.directory), Directory(f"{project.directory}/services"))
    return (*(directories if declared else ()), *project.files, *others, *marks)


def _stopped_reasons(
    service: str, containers: Sequence[Container], found: ProjectState
) -> Iterator[str]:
    """A service that an operator stopped may have a container, but none that runs."""
    if any(each.state not in ("exited", "created", "dead") for each in containers):
        yield f"service {service} runs, although it was {found.stopped[service]}"


def _service_reasons(
    project: Project, service: str, containers: Sequence[Container], found: ProjectState
) -> Iterator[str]:
    if len(containers) != 1:
        times = "is not running" if not containers else f"runs {len(containers)} times"
        yield f"service {service} {times}"
        return
    (container,) = containers
    if container.config != found.configs.get(service):
        yield f"service {service} runs with another configuration"
    if _other_image(project, container, found):
        yield f"service {service} runs an image other than {project.images[service]}"
    if container.state != "running":
        yield f"service {service} is {container.state}"
    elif container.health not in ("", "healthy"):
        yield f"service {service} is {container.health}"
    yield from _beyond_compose(project, container, found)


def _beyond_compose(project: Project, container: Container, found: ProjectState) -> Iterator[str]:
    """Differences of a container that Compose ignores."""
    service = container.service
    if container.cut_off:
        yield (
            f"service {service} can no longer open its GPUs, as happens after a reload of systemd: "
            "its container is recreated"
        )
    if container.name != (wanted := project.container(service)):
        yield f"the container of {service} is called {container.name}, not {wanted}"
    # By id: a recreated network has the same name, but the container is not connected to it.
    text = project.services[service]
    if on_host_network(text, service):
        if "host" not in container.networks:
            yield f"service {service} is not on the host's network"
    elif container.networks.get(project.network) != (found.network.id if found.network else None):
        yield f"service {service} is not on the network {project.network}"
    for sentence in additions(project.name, service, text, container.confinement):
        yield f"service {service} {sentence}"
    for sentence in found.settings.get(container.name, ()):
        yield f"service {service} has a setting that was changed manually: {sentence}"
    if (limits := project.limits.get(service)) and (changed := _updated(limits, container.limits)):
        yield f"service {service} has undeclared limits: {', '.join(changed)}"


def _updated(wanted: Limits, found: Limits) -> list[str]:
    """Names of the limits that differ."""
    # Docker drops limits that the host's kernel does not support, with only a warning.
    dropped = (wanted.pids, 0), (wanted.memory, 0), (wanted.cpus, ())
    differ = {
        "restart policy": found.restart != wanted.restart,
        "processes": found.pids not in dropped[0],
        "memory": found.memory not in dropped[1],
        "processors": found.cpus not in dropped[2],
    }
    return [name for name, differs in differ.items() if differs]


def interruptions(project: Project, found: ProjectState, todo: ComposePlan) -> list[str]:
    """Sentences about running services whose containers are replaced."""
    again = {*_recreated(project, found), *todo.remake}
    running = {each.service for each in found.containers if each.state == "running"}
    return [
        _interruption(project, service, todo)
        for service in project.services
        if service in again & running
    ]


def _interruption(project: Project, service: str, todo: ComposePlan) -> str:
    if service in todo.beside:
        return (
            f"a second container answers for service {service} until its new one is healthy,"
            " if there is memory for both"
        )
    because = f": {project.alone[service]}" if service in project.alone else ""
    return f"service {service} is interrupted until its new container is healthy{because}"


def _recreated(project: Project, found: ProjectState) -> list[str]:
    """Services with a running container that Compose recreates, in their order."""
    running = [each for each in found.containers if each.state == "running"]
    return [
        service
        for service in project.services
        if any(
            container.service == service
            and (
                container.config != found.configs.get(service)
                or _other_image(project, container, found)
                or _has_other_file(project, service, found)
            )
            for container in running
        )
    ]


def _has_other_file(project: Project, service: str, found: ProjectState) -> bool:
    path = project.service_file(service)
    declared = File(path, project.services[service])
    return path not in found.paths or found.paths[path].sha256 != declared.sha256


def _other_image(project: Project, container: Container, found: ProjectState) -> bool:
    image = found.images.get(project.images[container.service])
    return image is not None and container.image != image.id


def apply_script(project: Project, todo: ComposePlan) -> str:
    """Shell script that converges the project; stdin is an archive of new files.

    They replace the old ones after Compose has validated them. If a service does not become
    healthy, the script shows the end of its log and fails.
    """
    absent = [entry.path for entry in todo.entries if isinstance(entry, Absent)]
    lines = ["set -e", *LOCK]
    if not project.services:
        lines += [f"docker compose --project-name {project.name} down --remove-orphans"]
        return "\n".join([*lines, _remove([*absent, project.candidate])])
    compose = f"docker compose --file {shlex.quote(project.file)}"
    lines += _keep_files(project, todo.beside)
    lines += [*_activate_files(project), _remove([*absent, project.candidate])]
    if todo.strays:
        lines.append(f"docker rm --force {shlex.join(todo.strays)}")
    if todo.remake:
        lines.append(f"{compose} rm --stop --force {shlex.join(todo.remake)}")
    if todo.stray_network:
        lines.append(f"docker network rm {shlex.quote(todo.stray_network)}")
    start = start_script(project.name, project.file, project.start_timeout_seconds)
    if not todo.beside:
        return "\n".join([*lines, start])
    # What failed beside is said last: of a failed operation, the end is shown.
    lines += ["failed= words=$(mktemp)"]
    lines += [f'{_beside(project, each)} 2>>"$words" || failed=yes' for each in todo.beside]
    lines += [_remove([project.earlier]), f"{{ {start}; }} || failed=yes"]
    return "\n".join([*lines, 'cat "$words" >&2; rm -f "$words"', '[ -z "$failed" ]'])


LOCK = (
    "mkdir -p /run/llmhost",
    "exec 8>>/run/llmhost/stack.lock",
    # The script of a deploy that was interrupted ends a little later.
    "flock -w 900 8 || { echo 'an earlier deploy still changes the containers of this host:"
    " wait until it has ended, then run the command again' >&2; exit 1; }",
)
"""Shell commands that wait until no other script changes containers."""


def _keep_files(project: Project, services: Iterable[str]) -> Iterator[str]:
    """Keep the present files of services, which are restored if their new containers fail."""
    if services:
        yield f"install -d -m 0700 {shlex.quote(project.earlier)}"
        for each in services:
            kept = f"{project.earlier}/{each}.yaml"
            yield f"cp -p {shlex.quote(project.service_file(each))} {shlex.quote(kept)} || true"


def _beside(project: Project, service: str) -> str:
    """Shell command that replaces a service's container while a second one answers."""
    stand_in = project.stand_ins[service]
    return script(
        "docker/beside.sh",
        *(project.file, project.container(service), project.second_container(service)),
        *(service, project.images[service], str(stand_in.port), str(stand_in.container_port)),
        *(str(project.start_timeout_seconds), f"{project.earlier}/{service}.yaml"),
        *(stand_in.nginx, stand_in.loaded, str(stand_in.memory_bytes)),
        *(f"{gpu}={size}" for gpu, size in stand_in.gpu_bytes.items()),
    )


def start_script(name: str, file: str, timeout_seconds: int) -> str:
    """Shell script that starts a project's containers and waits until they are healthy.

    If a service does not become healthy, the script shows the end of its log and fails. Services
    that an operator stopped stay so.
    """
    up = script("docker/up.sh", file, str(timeout_seconds), "--remove-orphans")
    return f"{up} || {script('docker/last_words.sh', name)}"


def candidate_path(project: Project, file: File) -> str:
    """Path of a new file until Compose has validated it."""
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
