"""gevent in place of Python's own sockets and threads, as pyinfra needs it."""

from importlib import metadata
from unittest.mock import patch


def use_gevent() -> None:
    """Patch the standard library like pyinfra's command does. Idempotent.

    gevent looks for subscribers among the entry points at each of its 25 steps, and each time
    Python reads those of every installed package: a quarter of the start-up time. Here it reads
    them once.
    """
    from gevent import monkey

    found = metadata.entry_points()
    with patch.object(metadata, "entry_points", found.select):
        monkey.patch_all()
