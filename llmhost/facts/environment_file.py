"""A file of environment variables, without its values."""

import shlex

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.system.environment_file import EnvironmentState

_MARK = "=== llmhost: lines"


class EnvironmentFile(FactBase[EnvironmentState]):
    """The file's state, the digest of each line, and whether its owner exists."""

    @staticmethod
    def default() -> EnvironmentState:
        return EnvironmentState()

    def command(self, path: str, owner: str) -> str:
        file = shlex.quote(path)
        return (
            f"{PathStates().command([path])}; echo '{_MARK}';"
            f" id -u -- {shlex.quote(owner)} >/dev/null 2>&1 && echo owner;"
            f' [ -f {file} ] && grep "^[A-Za-z_].*=" {file} | while IFS= read -r line; do'
            # printf is a shell builtin: no value appears in the process list.
            ' echo "digest ${line%%=*} $(printf \'%s\' "$line" | sha256sum)"; done; true'
        )

    def process(self, output: list[str]) -> EnvironmentState:
        mark = output.index(_MARK)
        states = parse_states(output[:mark])
        rows = [line.split() for line in output[mark + 1 :]]
        return EnvironmentState(
            path=next(iter(states.values()), None),
            digests={words[1]: words[2] for words in rows if words[0] == "digest"},
            owner_exists=["owner"] in rows,
        )
