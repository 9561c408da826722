"""gevent in place of Python's own sockets and threads, as pyinfra needs it.

gevent, pyinfra and pydantic look for plugins some 30 times, and each time Python reads the entry
points of every installed package: a quarter of the start-up time. Here it reads them once for the
process. Its garbage collector, which looks through all that imports leave in memory, runs less
often (docs/decisions/0126).
"""

import gc
import sys
from importlib import metadata
from typing import Any

_ALLOCATIONS = 50_000
"""New objects after which the garbage collector runs; Python's default is 700."""


def use_gevent() -> None:
    """Patch the standard library like pyinfra's command does. Idempotent."""
    from gevent import monkey

    if not monkey.is_module_patched("socket"):
        _start_faster()
        monkey.patch_all()


def before_patching(event: object) -> None:
    """gevent's plugin (pyproject.toml), for pyinfra's own command: gevent calls it in every program
    of this environment before it patches anything."""
    del event
    if "pyinfra_cli" in sys.modules:
        _start_faster()


def _start_faster() -> None:
    gc.set_threshold(_ALLOCATIONS, *gc.get_threshold()[1:])
    if not hasattr(metadata.entry_points, "__self__"):
        once: Any = metadata.entry_points().select
        metadata.entry_points = once
