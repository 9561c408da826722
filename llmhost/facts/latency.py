"""How fast the gateway answers a host."""

import shlex

from pyinfra.api import FactBase

from llmhost.resources import FILES

_SCRIPT = FILES / "app_server/latency.py"
_NO_PYTHON = '{"error": "python"}'


class Latency(FactBase[list[str]]):
    """What files/app_server/latency.py prints on the host: one line of JSON.

    It reads the key from `path` on the host itself, so the key is in no argument.
    """

    @staticmethod
    def default() -> list[str]:
        return []

    def command(
        self, path: str, requests: int, tokens: int, model: str, timeout_seconds: float
    ) -> str:
        values = (path, requests, tokens, model, timeout_seconds)
        arguments = " ".join(shlex.quote(str(value)) for value in values)
        script = shlex.quote(_SCRIPT.read_text())
        return (
            f"if command -v python3 >/dev/null; then python3 -I -c {script} {arguments};"
            f" else echo '{_NO_PYTHON}'; fi"
        )

    def process(self, output: list[str]) -> list[str]:
        return output
