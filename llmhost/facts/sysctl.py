"""Parameters of the running kernel, and the file that sets them at boot."""

import shlex

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.system.files import PathState
from llmhost.system.sysctl import KernelState, parse_state, proc_path


class KernelParameters(FactBase[tuple[KernelState, dict[str, PathState]]]):
    """Running values of the named parameters, and the state of the file at `path`."""

    @staticmethod
    def default() -> tuple[KernelState, dict[str, PathState]]:
        return KernelState(), {}

    def command(self, names: list[str], path: str) -> str:
        paths = [shlex.quote(proc_path(name)) for name in names]
        pairs = " ".join(
            f"{shlex.quote(name)} {path}" for name, path in zip(names, paths, strict=True)
        )
        return (
            'echo "container $(systemd-detect-virt --container)";'
            f" set -- {pairs}; while [ $# -gt 1 ]; do"
            ' if [ -r "$2" ]; then mode=r; [ -w "$2" ] && mode=w;'
            ' echo "$1|$mode|$2"; fi; shift 2; done;'
            # The kernel gives each of these files to one read only: `read` would get a character.
            f" echo values; grep -H '' /dev/null {' '.join(paths)} 2>/dev/null;"
            f" echo file; {PathStates().command([path])}"
        )

    def process(self, output: list[str]) -> tuple[KernelState, dict[str, PathState]]:
        values, file = output.index("values"), output.index("file")
        state = parse_state(output[:values], output[values + 1 : file])
        return state, parse_states(output[file + 1 :])
