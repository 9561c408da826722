"""Entry point of the `llmhost` command."""

import errno
import os
import sys
from io import TextIOWrapper

from llmhost.cli.app import PLACES, app
from llmhost.cli.errors import ERROR, complain

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> None:
    """Run the command that the arguments name."""
    _replace_unknown_characters()
    try:
        _run()
    except OSError as error:
        if error.errno not in _FULL:
            raise
        # Python writes what is left when it ends, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        complain(f"{error.filename or 'the output'} cannot be written: {error.strerror}")
        sys.exit(ERROR)


def _replace_unknown_characters() -> None:
    """Where the locale is not UTF-8, print a question mark for what it does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _run() -> None:
    place = PLACES.get(next(iter(sys.argv[1:]), ""))
    if place and place.pyinfra:
        # gevent must replace sockets and threads before any module that uses them is imported.
        from llmhost.cli.gevent_start import use_gevent

        use_gevent()
    app()


if __name__ == "__main__":
    main()
