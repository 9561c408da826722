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
# Process 1 of a container that was given devices, such as GPUs by CDI. Who joins a paused container
# is paused.
_GIVEN = "{{if and .HostConfig.DeviceRequests (not .State.Paused)}}{{.State.Pid}}{{end}}"
_CONTAINER = "|".join(["container", *_FIELDS, "{{.State.Status}}", _HEALTH, _GIVEN])

# systemd knows nothing of devices that were added to a container's cgroup behind its back, and when
# it reloads takes them away (https://github.com/NVIDIA/nvidia-container-toolkit/issues/48). Images
# need not have a shell: one of ours joins the container's cgroup, which is what decides, and opens
# the device from there. Devices that do not open outside of it either say nothing.
_CUT_OFF = r"""
cut_off() {
  [ "${1:-0}" -gt 0 ] || return 1
  group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$1/cgroup" 2>/dev/null)
  [ -w "$group/cgroup.procs" ] || return 1
  for device in /dev/nvidiactl /dev/dxg; do
    [ -c "$device" ] && (: <"$device") 2>/dev/null || continue
    sh -c 'echo $$ >"$1" || exit 0; : <"$2"' sh "$group/cgroup.procs" "$device" 2>/dev/null ||
      return 0
  done
  return 1
}
while IFS= read -r line; do
  if cut_off "${line##*|}"; then echo "${line%|*}|cut"; else echo "${line%|*}|"; fi
done"""


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
            f" | xargs -r docker inspect --format '{_CONTAINER}' | {{ {_CUT_OFF}\n }};"
            f" {inspect_command(images)}; true"
        )

    def process(self, output: list[str]) -> ProjectState:
        configs = [line.split()[1:3] for line in output if line.startswith("config ")]
        containers = [line.split("|")[1:] for line in output if line.startswith("container|")]
        told = ("config ", "container|", "image|")
        return ProjectState(
            paths=parse_states([line for line in output if not line.startswith(told)]),
            configs=dict(configs),
            containers=tuple(map(_container, containers)),
            images=parse_images(output),
        )


def _container(fields: list[str]) -> Container:
    path, service, config, image, state, health, cut_off = fields
    return Container(path.lstrip("/"), service, config, image, state, health, bool(cut_off))
