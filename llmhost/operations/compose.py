"""Docker Compose projects."""

from pyinfra import host
from pyinfra.api import StringCommand

from llmhost import compose
from llmhost.compose import Project
from llmhost.facts.compose import ComposeProject
from llmhost.filetree import archive
from llmhost.operations.changes import Commands, declared, explain


@declared
def project(project: Project) -> Commands:
    """Let exactly these services run, healthy, from these files; others of the project go.

    Their named volumes stay. A container counts as different when it was stopped, changed, made
    from another configuration or image, or is not healthy.
    """
    found = host.get_fact(
        ComposeProject,
        project=project.name,
        directory=project.directory,
        images=[*project.images.values()],
    )
    todo = compose.plan(project, found)
    if todo.reasons:
        explain(todo.reasons)
        waiting = {compose.candidate_path(project, file): file for file in project.files}
        yield StringCommand(compose.apply_script(project, todo), _stdin=archive(waiting))
