"""What runs of a Docker Compose project."""

import shlex
from collections.abc import Sequence

from pyinfra.api import FactBase

from llmhost.compose import Container, ProjectState
from llmhost.facts.files import PathStates, parse_states
from llmhost.facts.images import inspect_command, parse_images

_LABEL = '{{{{index .Config.Labels "com.docker.compose.{}"}}}}'
_HEALTH = "{{if .State.Health}}{{.State.Health.Status}}{{end}}"
_FIELDS = ["{{.Name}}", _LABEL.format("service"), _LABEL.format("config-hash"), "{{.Image}}"]
_CONTAINER = "|".join(["container", *_FIELDS, "{{.State.Status}}", _HEALTH])


class ComposeProject(FactBase[ProjectState]):
    """Files, configurations, containers and images of a project, in one round trip.

    Containers of `docker compose run` are not part of it: an operator made them for a moment.
    """

    @staticmethod
    def default() -> ProjectState:
        return ProjectState({}, {}, (), {})

    def command(self, project: str, directory: str, images: Sequence[str]) -> str:
        file, services = f"{directory}/compose.yaml", f"{directory}/services"
        labels = [f"com.docker.compose.project={project}", "com.docker.compose.oneoff=False"]
        filters = " ".join(f"--filter label={label}" for label in labels)
        return (
            f"{PathStates().command([directory, services, file], under=services)};"
            f" docker compose --file {shlex.quote(file)} config --hash '*' 2>/dev/null"
            " | sed 's/^/config /';"
            f" docker ps --all --quiet {filters} 2>/dev/null"
            f" | xargs -r docker inspect --format '{_CONTAINER}';"
            f" {inspect_command(images)}; true"
        )

    def process(self, output: list[str]) -> ProjectState:
        configs = [line.split()[1:3] for line in output if line.startswith("config ")]
        containers = [line.split("|")[1:] for line in output if line.startswith("container|")]
        told = ("config ", "container|", "image|")
        return ProjectState(
            paths=parse_states([line for line in output if not line.startswith(told)]),
            configs=dict(configs),
            containers=tuple(Container(name.lstrip("/"), *rest) for name, *rest in containers),
            images=parse_images(output),
        )
