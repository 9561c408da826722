"""nginx's configuration on disk, and the one it runs."""

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.nginx import NginxState, loaded_command, parse_state

_MARK = "service "


class Nginx(FactBase[NginxState]):
    """State of these paths and of every file below `under`, of the unit, and what nginx says."""

    @staticmethod
    def default() -> NginxState:
        return NginxState()

    def command(self, paths: list[str], under: str, status_port: int) -> str:
        outputs = {
            "active": "systemctl is-active nginx 2>/dev/null",
            "enablement": "systemctl is-enabled nginx 2>/dev/null",
            "loaded": loaded_command(status_port),
        }
        asked = [f'echo "{_MARK}{key}=$({command})"' for key, command in outputs.items()]
        return "; ".join([PathStates().command(paths, under), *asked])

    def process(self, output: list[str]) -> NginxState:
        service = [line.removeprefix(_MARK) for line in output if line.startswith(_MARK)]
        paths = parse_states([line for line in output if not line.startswith(_MARK)])
        return parse_state(paths, service)
