"""Entry point of the `llmhost` command."""

# gevent replaces sockets and threads; pyinfra needs that before anything else imports them.
from gevent import monkey

monkey.patch_all()

from llmhost.cli.app import app  # noqa: E402

if __name__ == "__main__":
    app()
