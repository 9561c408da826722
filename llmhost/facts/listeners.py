"""Programs that listen on TCP ports of a host."""

from collections.abc import Sequence

from pyinfra.api import FactBase

from llmhost.resources import script
from llmhost.system.listeners import Listener, parse_listener


class Listeners(FactBase[Sequence[Listener]]):
    """Who listens on these ports. Source: /proc/net/tcp and /proc/net/tcp6."""

    @staticmethod
    def default() -> Sequence[Listener]:
        return ()

    def command(self, ports: list[int]) -> str:
        return script("system/listeners.sh", *map(str, ports))

    def process(self, output: list[str]) -> Sequence[Listener]:
        return [parse_listener(line) for line in output]
