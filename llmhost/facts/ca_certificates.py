"""Certificate authorities that the system trusts."""

import shlex

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.system.ca_certificates import BUNDLE, TrustState

_BUNDLED = "=== llmhost: bundled"


class TrustedCertificate(FactBase[TrustState]):
    """State of an authority's file, and whether a given line of it is in the system's bundle."""

    @staticmethod
    def default() -> TrustState:
        return TrustState()

    def command(self, path: str, line: str) -> str:
        return (
            f"{PathStates().command([path])};"
            f" grep -qsxF -- {shlex.quote(line)} {BUNDLE} && echo '{_BUNDLED}'; true"
        )

    def process(self, output: list[str]) -> TrustState:
        lines = [line for line in output if line != _BUNDLED]
        return TrustState(parse_states(lines), bundled=len(lines) < len(output))
