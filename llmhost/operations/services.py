"""Stop, start and restart one service of a deployed stack (docs/decisions/0086)."""

from pyinfra.api import StringCommand

from llmhost.docker.compose import Project, ProjectState
from llmhost.docker.stopped import restart_script, start_script, stop_script
from llmhost.facts.compose import ComposeProject
from llmhost.operations.changes import explain, note, refuse
from llmhost.operations.compose import project_question
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.journal import new_record


def _read(project: Project) -> ProjectState:
    return get_fact(ComposeProject, **project_question(project).arguments)


def _missing(project: Project, service: str, found: ProjectState) -> list[str]:
    """Why the service cannot be changed on this host; empty if it was deployed."""
    if project.service_file(service) in found.paths:
        return []
    return [f"the service {service} is declared and not deployed yet; deploy first"]


@declared(prefetch=lambda project, service: [project_question(project)])
def stopped(project: Project, service: str) -> Commands:
    """Stop a service until it is started again: deploys, reboots and the healer leave it so.

    A file on the host records who stopped it and when.
    """
    found = _read(project)
    runs = any(
        each.service == service and each.state not in ("exited", "created", "dead")
        for each in found.containers
    )
    if problems := _missing(project, service, found):
        yield refuse(problems)
    elif service in found.stopped and not runs:
        note([f"it was {found.stopped[service]}"])
    else:
        record = new_record()
        explain([f"{service} is stopped by {record.by}"])
        yield StringCommand(stop_script(project, service, record.by, record.begun))


@declared(prefetch=lambda project, service: [project_question(project)])
def started(project: Project, service: str) -> Commands:
    """Start a service, and only this one, and wait until it is healthy."""
    found = _read(project)
    if problems := _missing(project, service, found):
        yield refuse(problems)
    else:
        if service in found.stopped:
            note([f"it was {found.stopped[service]}"])
        explain([f"{service} is started by {new_record().by}"])
        yield StringCommand(start_script(project, service))


@declared(prefetch=lambda project, service: [project_question(project)])
def restarted(project: Project, service: str) -> Commands:
    """Restart a service and wait until it is healthy. One that an operator stopped is refused."""
    found = _read(project)
    if problems := _missing(project, service, found):
        yield refuse(problems)
    elif service in found.stopped:
        yield refuse([f"the service {service} was {found.stopped[service]}; start it instead"])
    else:
        explain([f"{service} is restarted by {new_record().by}"])
        yield StringCommand(restart_script(project, service))
