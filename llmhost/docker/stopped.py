"""Services that an operator stopped, with a file for each on the host (docs/decisions/0086).

Pure: facts/compose.py reads the files, operations/services.py runs the commands.
"""

import shlex

from llmhost.docker.compose import Project
from llmhost.resources import script


def stop_script(project: Project, service: str, by: str, at: str) -> str:
    """Shell script that stops a service for good: Docker, the healer and deploys leave it so.

    The file comes first, so that the healer does not start the container in between.
    """
    mark = shlex.quote(project.mark(service))
    text = shlex.quote(f"stopped by {by} at {at}")
    lines = ["set -e", "umask 022", f"mkdir -p {shlex.quote(project.stopped)}"]
    lines += [f"echo {text} >{mark}.new", f"mv -fT {mark}.new {mark}"]
    return "\n".join([*lines, f"{_compose(project)} stop {shlex.quote(service)}"])


def start_script(project: Project, service: str) -> str:
    """Shell script that starts a service, and only this one, and waits until it is healthy."""
    return f"rm -f {shlex.quote(project.mark(service))}\n{_up(project, service)}"


def restart_script(project: Project, service: str) -> str:
    """Shell script that restarts a service and waits until it is healthy."""
    restart = f"{_compose(project)} restart --no-deps {shlex.quote(service)}"
    return f"{restart} && {_up(project, service)}"


def _compose(project: Project) -> str:
    return f"docker compose --file {shlex.quote(project.file)}"


def _up(project: Project, service: str) -> str:
    seconds = project.start_timeout_seconds
    up = f"up --detach --no-deps --wait --wait-timeout {seconds} {shlex.quote(service)}"
    return f"{_compose(project)} {up} || {script('docker/last_words.sh', project.name)}"
