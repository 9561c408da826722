"""gevent in place of Python's own sockets and threads, as pyinfra needs it."""

from importlib import metadata
from typing import Any


def use_gevent() -> None:
    """Patch the standard library like pyinfra's command does. Idempotent.

    gevent, pyinfra and pydantic look for plugins some 30 times, and each time Python reads the
    entry points of every installed package: a quarter of the start-up time. Here it reads them
    once for the process.
    """
    from gevent import monkey

    if not monkey.is_module_patched("socket"):
        once: Any = metadata.entry_points().select
        metadata.entry_points = once
        monkey.patch_all()
