"""The site's store of weights, as a host sees it."""

import shlex

from pyinfra.api import FactBase

SECONDS = 20
"""Timeout for a share, whose server may not answer."""
NOT_ASKED = "the model store has not been asked"


class FromStore(FactBase[str]):
    """Why weights did not come from the store; empty if they did. `whole` is their path, and
    files/docker/store.sh writes the reason beside it."""

    of_the_moment = True

    @staticmethod
    def default() -> str:
        return ""

    def command(self, whole: str) -> str:
        path, note = shlex.quote(whole), shlex.quote(f"{whole}.note")
        return f"[ -e {path} ] || cat {note} 2>/dev/null || echo '{NOT_ASKED}'"

    def process(self, output: list[str]) -> str:
        return " ".join(output).strip()


class ShareState(FactBase[str]):
    """What is wrong with the directory of a store: it `does not exist`, `is empty` or `does not
    answer`; empty if nothing is."""

    @staticmethod
    def default() -> str:
        return ""

    def command(self, share: str) -> str:
        path = shlex.quote(f"{share}/")  # the slash refuses a file, and follows a link
        return (
            f"found=$(timeout {SECONDS} ls -A {path} 2>/dev/null);"
            ' case $?,$found in 124,*) echo "does not answer" ;; 0,) echo "is empty" ;;'
            ' 0,*) ;; *) echo "does not exist" ;; esac'
        )

    def process(self, output: list[str]) -> str:
        return "".join(output).strip()
