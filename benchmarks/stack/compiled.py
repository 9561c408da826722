"""What vLLM's kept cache saves: `python -m benchmarks.stack.compiled`, about ten minutes.

Seconds until the real vLLM for CPUs is healthy, with the command, environment and cache that
llmhost renders: with an empty cache, then with what that start has compiled. The model has four
layers of random weights, so nearly all of the time is the engine's own. A start without compilation
comes first: it reads the engine's files into memory.
"""

import tempfile
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from testbed.real_vllm import VERSION
from tests.engines.vllm_starts import Start, starts


def main(rounds: Annotated[int, typer.Option(help="Starts after the first one")] = 1) -> None:
    """Print the times."""
    with tempfile.TemporaryDirectory(prefix="llmhost-compiled-") as place:
        _print("without compilation", next(starts(Path(place) / "eager", "--enforce-eager")))
        compiling = starts(Path(place) / "compiled")
        _print("with an empty cache", next(compiling))
        for start in islice(compiling, rounds):
            _print("with a kept cache", start)


def _print(what: str, start: Start) -> None:
    print(
        f"vLLM {VERSION} {what}: healthy after {start.seconds:.0f} s,"
        f" {len(start.files)} files in the cache",
        flush=True,
    )


if __name__ == "__main__":
    typer.run(main)
