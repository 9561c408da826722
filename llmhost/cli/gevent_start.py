"""gevent in place of Python's own sockets and threads, as pyinfra needs it.

gevent, pyinfra and pydantic look for plugins some 30 times, and each time Python reads the entry
points of every installed package: a quarter of the start-up time. Here it reads them once for the
process (docs/decisions/0126).
"""

import sys
from importlib import metadata
from typing import Any


def use_gevent() -> None:
    """Patch the standard library like pyinfra's command does. Idempotent."""
    from gevent import monkey

    if not monkey.is_module_patched("socket"):
        _remember_entry_points()
        monkey.patch_all()


def before_patching(event: object) -> None:
    """gevent's plugin (pyproject.toml), for pyinfra's own command: gevent calls it in every program
    of this environment before it patches anything."""
    del event
    if "pyinfra_cli" in sys.modules:
        _remember_entry_points()


def _remember_entry_points() -> None:
    if not hasattr(metadata.entry_points, "__self__"):
        once: Any = metadata.entry_points().select
        metadata.entry_points = once
