"""The `llmhost` command: day-2 work around `pyinfra INVENTORY deploy.py`."""

# gevent replaces sockets and threads; pyinfra needs that before anything else imports them.
from gevent import monkey

monkey.patch_all()

from llmhost.cli.app import app  # noqa: E402

__all__ = ["app"]
