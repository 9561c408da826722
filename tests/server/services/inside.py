"""Requests from inside a service's container, for services that are reachable only there."""

import json
import shlex
from typing import Any

from testinfra.host import Host

from llmhost.settings import Settings


class Inside:
    """One container of the stack; `get` requires bash in its image."""

    def __init__(self, host: Host, settings: Settings, service: str) -> None:
        self._host = host
        self._container = f"{settings.stack.project}-{service}-1"

    def run(self, *command: str) -> str:
        """The output of a command, which must succeed."""
        return str(self._host.check_output(f"docker exec {self._container} {shlex.join(command)}"))

    def get(self, port: int, path: str) -> Any:
        """The service's answer as JSON; its status must be 200."""
        lines = (f"GET {path} HTTP/1.0", "Host: localhost", "Connection: close", "", "")
        request = shlex.quote("\\r\\n".join(lines))
        script = f"exec 3<>/dev/tcp/127.0.0.1/{port} && printf {request} >&3 && cat <&3"
        head, _, body = self.run("bash", "-c", script).replace("\r", "").partition("\n\n")
        assert head.split()[1] == "200", head
        return json.loads(body)
