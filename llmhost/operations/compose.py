"""Docker Compose projects."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand

from llmhost.docker import compose
from llmhost.docker.compose import Project
from llmhost.facts.compose import ComposeProject
from llmhost.facts.system import HostCapacity
from llmhost.nvidia.driver import Unsatisfiable
from llmhost.nvidia.gpu_allocation import Devices, GpuRequest, devices_of, wsl_note
from llmhost.nvidia.state import Gpu, NvidiaState
from llmhost.operations.changes import explain, note, refuse
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import Question, ask
from llmhost.operations.nvidia_packages import UNREADABLE, nvidia_question, read_state
from llmhost.stack.limits import Capacity
from llmhost.system.files import archive

OnHost = Callable[[Devices, Capacity, Sequence[Gpu]], Project]
"""The project on a host with this capacity and these GPUs, some of which its services get."""


class Backup(NamedTuple):
    """A shell command that makes a backup, and its standard input."""

    command: str
    secrets: str


def project_question(project: Project) -> Question:
    return ask(
        ComposeProject,
        project=project.name,
        directory=project.directory,
        images=[*project.images.values()],
        containers=[project.container(service) for service in project.services],
        questions={project.container(name): text for name, text in project.questions.items()},
    )


def _prefetch(
    project: Project,
    *,
    gpus: Mapping[str, GpuRequest] | None = None,
    on_host: OnHost | None = None,
    **_: object,
) -> list[Question]:
    """Neither GPUs nor limits change the names that the project is read by."""
    questions = [project_question(project)]
    if on_host:
        questions.append(ask(HostCapacity))
    if on_host and gpus:
        questions.append(nvidia_question(wanted=True))
    return questions


@declared(prefetch=_prefetch)
def project(
    project: Project,
    *,
    gpus: Mapping[str, GpuRequest] | None = None,
    on_host: OnHost | None = None,
    keeping: Sequence[str] = (),
    together: Sequence[str] = (),
    backup: Callable[[], Backup] | None = None,
) -> Commands:
    """Run exactly these services, healthy, from these files; remove other services of the project.

    Named volumes stay. A container is recreated if it was stopped or changed, was created from
    another configuration or image, is unhealthy, has lost its GPU devices, its network or its
    limits, or if settings were changed in the running service. A container that was created by hand
    with a service's name is replaced. Services that an operator stopped stay so. It fails, after
    all other changes, if the settings of a running service cannot be read. `gpus` are the requests
    of services; `on_host` returns the project for the devices that they get, with limits in
    proportion to the host. Before the image of a service in `keeping` changes, which may migrate
    its data, `backup` is made; without one, a note says so. `together` are hosts without which the
    services cannot start: if one of them has failed in this run, nothing is changed.
    """
    found = get_fact(ComposeProject, **project_question(project).arguments)
    notes: list[str] = []
    if on_host:
        capacity = get_fact(HostCapacity)
        try:
            there = _gpus() if gpus else None
            devices = devices_of(gpus, there) if gpus and there else {}
        except Unsatisfiable as error:
            # In a dry run, an earlier operation of the deploy may install the driver.
            if host.state.is_executing:
                yield refuse(error.sentences)
                return
            notes = [*error.sentences]
        else:
            project = on_host(devices, capacity, there.gpus if there else ())
            notes = wsl_note(devices)
    if stopped := found.notes(project.services):
        note(stopped)
    todo = compose.plan(project, found)
    if todo.reasons and (lost := _lost(together)):
        yield refuse([_without(lost)])
        return
    refusal = refuse(todo.unknown) if todo.unknown else None
    if todo.reasons:
        explain([*todo.reasons, *compose.interruptions(project, found, todo), *notes])
        if updated := compose.updated(project, found, keeping):
            sentence, command = _backup(updated, backup)
            note([*stopped, sentence])
            if command:
                yield command
            if isinstance(command, FunctionCommand):
                return
        waiting = {compose.candidate_path(project, file): file for file in project.files}
        yield StringCommand(compose.apply_script(project, todo), _stdin=archive(waiting))
    if refusal:
        yield refusal


def _lost(names: Sequence[str]) -> list[str]:
    """Those of the hosts that have failed in this run."""
    failed = host.state.failed_hosts if names else ()
    return sorted(each.name for each in failed if each.name in names)


def _without(lost: Sequence[str]) -> str:
    names = " and ".join(lost)
    return (
        f"the services stay as they are: {names} failed before, and the engine group needs all"
        " members; correct that, and deploy them together"
    )


def _backup(
    services: Sequence[str], backup: Callable[[], Backup] | None
) -> tuple[str, StringCommand | FunctionCommand | None]:
    """A sentence, and the command that makes a backup or refuses the deploy."""
    change = f"the image of {', '.join(services)} changes"
    if backup is None:
        why = "there is no backup_repository, or backup_before_updates is off"
        return f"{change}, and its data is not backed up first: {why}", None
    try:
        made = backup()
    except ValueError as error:
        return change, refuse([f"{change}, and no backup can be made first: {error}"])
    command = StringCommand(made.command, _stdin=made.secrets)
    return f"{change}: its data is backed up first", command


def _gpus() -> NvidiaState:
    state = read_state(wanted=True)
    if state is None:
        raise Unsatisfiable(UNREADABLE)
    return state
