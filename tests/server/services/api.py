"""Requests from the server directly to a service, without the gateway."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.settings import Settings


@dataclass(frozen=True)
class Api:
    """The service's port on the loopback. `through` is a command that runs the request elsewhere,
    such as in the network of a container."""

    host: Host
    base: str
    through: str = ""

    def _curl(self, path: str, body: dict[str, Any] | None, options: str) -> str:
        command = f"{self.through} curl --silent --show-error --max-time 300 {options}".lstrip()
        if body is not None:
            data = shlex.quote(json.dumps(body))
            command += f" --header 'Content-Type: application/json' --data {data}"
        return str(self.host.check_output(f"{command} {shlex.quote(self.base + path)}"))

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer as JSON, to a POST of the body or to a GET."""
        return json.loads(self._curl(path, body, "--fail-with-body"))

    def status(self, path: str, body: dict[str, Any] | None = None) -> int:
        """The status of the answer."""
        return int(self._curl(path, body, "--output /dev/null --write-out '%{http_code}'"))

    def stream(self, path: str, body: dict[str, Any]) -> list[str]:
        """The lines of an answer that are not empty, without `data: `."""
        lines = self._curl(path, body, "--no-buffer --fail-with-body").splitlines()
        return [line.removeprefix("data: ") for line in lines if line]


def api_of(service: str, host: Host, settings: Settings) -> Api:
    """Skips the test if the service is not declared."""
    if service not in settings.services:
        does_not_apply(f"the service {service} is not declared")
    if settings.serves_a_head and service == "vllm":
        does_not_apply(f"{settings.engine_group.head} answers for this engine group")
    return Api(host, f"http://127.0.0.1:{settings.options(service).port}")
