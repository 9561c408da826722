"""Entry point of the `llmhost` command."""

import sys

from llmhost.cli.app import PLACES, app


def main() -> None:
    """Run the command that the arguments name."""
    place = PLACES.get(next(iter(sys.argv[1:]), ""))
    if place and place.pyinfra:
        # gevent must replace sockets and threads before any module that uses them is imported.
        from llmhost.cli.gevent_start import use_gevent

        use_gevent()
    app()


if __name__ == "__main__":
    main()
