"""Latency of the gateway, measured on a host."""

import shlex

from pyinfra.api import FactBase

from llmhost.resources import FILES

_SCRIPT = FILES / "app_server/latency.py"
_NO_PYTHON = '{"error": "python"}'


class Latency(FactBase[list[str]]):
    """The output of files/app_server/latency.py on the host: one line of JSON.

    The program reads the key from `path` on the host, so that no argument contains it.
    """

    @staticmethod
    def default() -> list[str]:
        return []

    def command(
        self,
        path: str,
        requests: int,
        tokens: int,
        model: str,
        timeout_seconds: float,
        chat_path: str,
    ) -> str:
        values = (path, requests, tokens, model, timeout_seconds, chat_path)
        arguments = " ".join(shlex.quote(str(value)) for value in values)
        script = shlex.quote(_SCRIPT.read_text())
        return (
            f"if command -v python3 >/dev/null; then python3 -I -c {script} {arguments};"
            f" else echo '{_NO_PYTHON}'; fi"
        )

    def process(self, output: list[str]) -> list[str]:
        return output
