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
        pairs = " ".join(f"{shlex.quote(name)} {shlex.quote(proc_path(name))}" for name in names)
        return (
            'echo "container $(systemd-detect-virt --container)";'
            f" set -- {pairs}; while [ $# -gt 1 ]; do"
            ' if [ -r "$2" ]; then mode=r; [ -w "$2" ] && mode=w;'
            ' printf \'%s|%s|%s\\n\' "$1" "$mode" "$(cat "$2" 2>/dev/null)"; fi; shift 2; done;'
            f" echo file; {PathStates().command([path])}"
        )

    def process(self, output: list[str]) -> tuple[KernelState, dict[str, PathState]]:
        middle = output.index("file")
        return parse_state(output[:middle]), parse_states(output[middle + 1 :])
