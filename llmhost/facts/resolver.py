"""How a host resolves names."""

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.system.resolver import PATHS, RESOLV_CONF, ResolverState

_MARK = "=== llmhost: resolver"


class Resolver(FactBase[ResolverState]):
    """State of the resolver's files, and whether systemd-resolved runs."""

    @staticmethod
    def default() -> ResolverState:
        return ResolverState()

    def command(self) -> str:
        return (
            f"{PathStates().command([*PATHS])}; echo '{_MARK}';"
            f' [ -L {RESOLV_CONF} ] && echo "target $(readlink -m {RESOLV_CONF})";'
            " systemctl is-active --quiet systemd-resolved && echo resolved; true"
        )

    def process(self, output: list[str]) -> ResolverState:
        mark = output.index(_MARK)
        lines = output[mark + 1 :]
        targets = [line.removeprefix("target ") for line in lines if line.startswith("target ")]
        return ResolverState(parse_states(output[:mark]), "".join(targets), "resolved" in lines)
