"""Commands on another machine, which sees a server as its clients do."""

import shlex
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from llmhost.checks.command_log import asked
from llmhost.verify.report import Asked

Done = subprocess.CompletedProcess[str]


class Outside:
    """Runs commands on the controller, or by `prefix` on another machine."""

    def __init__(self, prefix: Sequence[str]) -> None:
        self._prefix = prefix
        self._pool = ThreadPoolExecutor(32)

    def __call__(self, *command: str, timeout: float = 60) -> Done:
        return self.start(*command, timeout=timeout)()

    def start(self, *command: str, timeout: float = 60) -> Callable[[], Done]:
        """Start a command. The returned function waits for its end, and records it for the check
        that calls it."""
        words = [*self._prefix, *command]
        future = self._pool.submit(
            subprocess.run, words, capture_output=True, text=True, timeout=timeout
        )

        def finish() -> Done:
            done: Done = future.result()
            asked.append(Asked("outside", shlex.join(command), done.returncode))
            return done

        return finish

    def close(self) -> None:
        self._pool.shutdown()
