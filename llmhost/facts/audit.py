"""The kernel's audit on a host."""

from collections.abc import Sequence

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.resources import script
from llmhost.system.audit import AuditState, key, parse_state, rules_path

_MARK = "=== audit"


class Audit(FactBase[AuditState]):
    """auditd, the loaded rules of a component, and which of its paths exist."""

    @staticmethod
    def default() -> AuditState:
        return AuditState()

    def command(self, component: str, paths: Sequence[str]) -> str:
        states = PathStates().command([rules_path(component)])
        return f"{states}; echo '{_MARK}'; {script('system/audit.sh', key(component), *paths)}"

    def process(self, output: list[str]) -> AuditState:
        middle = output.index(_MARK)
        return parse_state(output[middle + 1 :], parse_states(output[:middle]))
