"""Return a server to the pool of this gateway when its training has ended.

`llmhost train` copies this file to a gateway and starts it there as root, by a unit of systemd that
is enabled until the server is returned, with Python 3.10 or newer:

    python3 -I return.py DIRECTORY

The directory has `question.json`, see Question. The server is asked every two seconds, through its
own gateway: it answers while it trains, and stays drained as long as it does not answer.
"""

import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

POLL_SECONDS = 2
MARK_SECONDS = 120
ANSWER_SECONDS = 5


class Question:
    """What `question.json` says: `server` with `address`, `port` and the `host` of requests to it,
    whether by `tls`, the `paths` that say `running` or `stopped`, nginx's `configuration` and
    `directory`, in it `key`, `authority`, `upstreams` and `mark` with `mark_text`,
    `patience_seconds` in which the training begins, `lock` of deploys, and `unit`."""

    def __init__(self, directory: Path) -> None:
        self.home = directory
        found: dict[str, Any] = json.loads((directory / "question.json").read_text())
        self.server: str = found["server"]
        self.address: str = found["address"]
        self.port: int = found["port"]
        self.host: str = found["host"]
        self.tls: bool = found["tls"]
        self.paths: list[str] = found["paths"]
        self.configuration = Path(found["configuration"])
        self.directory = Path(found["directory"])
        self.key = Path(found["key"])
        self.authority = Path(found["authority"])
        self.upstreams = Path(found["upstreams"])
        self.mark = Path(found["mark"])
        self.mark_text: str = found["mark_text"]
        self.patience_seconds: int = found["patience_seconds"]
        self.lock = Path(found["lock"])
        self.unit: str = found["unit"]

    @property
    def is_marked(self) -> bool:
        """Whether the server is drained for a training, and nobody has taken that over."""
        with suppress(OSError):
            return self.mark.read_text() == self.mark_text
        return False

    @property
    def has_patience(self) -> bool:
        with suppress(OSError):
            return time.time() - self.mark.stat().st_mtime < self.patience_seconds
        return False


def watch(question: Question) -> None:
    """Until the server is returned, by this program or by a person."""
    began = seen = False
    deadline = time.monotonic() + MARK_SECONDS
    while True:
        if question.is_marked:
            began = True
            answers = [ask(question, path) for path in question.paths]
            seen = seen or "stopped" in answers
            has_ended = seen or not question.has_patience
            if has_ended and {*answers} == {"running"} and returned(question):
                return
        elif began or time.monotonic() > deadline:
            return
        time.sleep(POLL_SECONDS)


def ask(question: Question, path: str) -> str:
    """`running` or `stopped`; empty without such an answer."""
    with suppress(OSError, http.client.HTTPException, ValueError):
        found = re.search(r'"(Bearer [^"]+)"', question.key.read_text())
        headers = {"Authorization": found[1] if found else "", "Connection": "close"}
        connection = http.client.HTTPConnection(question.host)
        connection.sock = connected(question)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            if answer.status == 200:
                return answer.read(100).decode().strip()
        finally:
            connection.close()
    return ""


def connected(question: Question) -> socket.socket:
    """A connection, with TLS as nginx has it: all servers have one name."""
    place = (question.address, question.port)
    plain = socket.create_connection(place, timeout=ANSWER_SECONDS)
    if not question.tls:
        return plain
    context = ssl.create_default_context(cafile=str(question.authority))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        return context.wrap_socket(plain, server_hostname=question.host)
    except (OSError, ValueError):
        plain.close()
        raise


def returned(question: Question) -> bool:
    """Send requests to the server again; whether that was done. The mark goes last: what was
    interrupted is done again."""
    with locked(question) as is_free:
        if not is_free:
            return False
        if not question.is_marked:
            return True
        place = question.directory / "status.conf"
        before = {file: file.read_text() for file in (question.upstreams, place)}
        lines = re.escape(f";  # {question.server}")
        text = re.sub(rf"(?m) down({lines})$", r"\1", before[question.upstreams])
        write(question, question.upstreams, text)
        status = re.sub(r'(?<=return 200 ")[0-9a-f]{64}', digest(question), before[place])
        write(question, place, status)
        tested = subprocess.run(["nginx", "-t", "-q", "-c", str(question.configuration)])
        if tested.returncode:
            for file, earlier in before.items():
                write(question, file, earlier)
            return False
        if subprocess.run(["systemctl", "reload", "nginx"]).returncode:
            return False
        question.mark.unlink()
        return True


def digest(question: Question) -> str:
    """The digest of the configuration without the mark, as llmhost/gateway/nginx.py has it: so a
    deploy finds what it would have written."""
    files = [question.configuration, *question.directory.iterdir()]
    left_out = (question.mark, question.directory / "status.conf")
    listed = sorted(
        (str(file), hashlib.sha256(file.read_bytes()).hexdigest())
        for file in files
        if file not in left_out
    )
    return hashlib.sha256(repr(listed).encode()).hexdigest()


def write(question: Question, file: Path, text: str) -> None:
    """Replace a file at once, by a draft outside of the directory, in which all files count."""
    draft = question.configuration.with_name(f".{question.unit}.new")
    draft.write_text(text)
    shutil.copymode(file, draft)
    draft.replace(file)


@contextmanager
def locked(question: Question) -> Iterator[bool]:
    """The lock of a deploy (files/history/lock.sh), if it is free."""
    question.lock.parent.mkdir(parents=True, exist_ok=True)
    with question.lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def end(question: Question) -> None:
    """Remove this program, under the lock: a drain that begins now writes its files again, and
    starts it again."""
    while True:
        with locked(question) as is_free:
            if is_free:
                remove(question)
                return
        time.sleep(POLL_SECONDS)


def remove(question: Question) -> None:
    """Nothing is left of this program."""
    subprocess.run(["systemctl", "disable", "--quiet", question.unit])
    Path("/etc/systemd/system", question.unit).unlink(missing_ok=True)
    shutil.rmtree(question.home, ignore_errors=True)
    subprocess.run(["systemctl", "daemon-reload"])


if __name__ == "__main__":
    os.umask(0o077)
    asked = Question(Path(sys.argv[1]))
    watch(asked)
    end(asked)
