"""Settings of a host's sshd."""

import base64

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.facts.systemd import UnitQuestion
from llmhost.resources import script
from llmhost.system.sshd import DROP_IN, MAIN, SshdState, parse_values
from llmhost.system.systemd import parse_unit

_MARK = "=== unit"
_UNIT = UnitQuestion("ssh.service", (DROP_IN,))
_KINDS = ("effective ", "others ", "changed ", "own ", "failed ", "methods ", "exception ")


class Sshd(FactBase[SshdState]):
    """Settings in force, from `sshd -T`; the file of llmhost; whether sshd runs with older files.

    The default state is that of a host without sshd.
    """

    @staticmethod
    def default() -> SshdState:
        return SshdState()

    def command(self) -> str:
        states = PathStates().command([DROP_IN])
        return (
            f"{states}; {script('system/sshd.sh', MAIN, DROP_IN)}; echo '{_MARK}'; {_UNIT.command}"
        )

    def process(self, output: list[str]) -> SshdState:
        middle = output.index(_MARK)
        first, unit = output[:middle], parse_unit(output[middle + 1 :])
        kinds = {kind: _of(first, kind) for kind in _KINDS}
        changed = max(map(float, kinds["changed "]), default=0.0)
        return SshdState(
            parse_values(kinds["effective "]),
            parse_values(kinds["others "]),
            base64.b64decode("".join(kinds["own "])).decode(errors="replace"),
            parse_states([line for line in first if not line.startswith(_KINDS)]),
            stale=unit.running and unit.configured > unit.loaded,
            others_stale=unit.running and changed > unit.loaded,
            failed="".join(kinds["failed "]),
            methods=tuple(kinds["methods "]),
            exceptions=tuple(kinds["exception "]),
        )


def _of(lines: list[str], kind: str) -> list[str]:
    return [line.removeprefix(kind) for line in lines if line.startswith(kind)]
