"""Starts, watches and ends processes by an unambiguous identity.

Pids are reused. A pid with its start time and the kernel's boot id identifies a process forever
(proc_pid_stat(5), field 22 ``starttime``), so an old record can never end another process.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


class MachineError(RuntimeError):
    """A test machine could not be created, reached or used; the message says why."""


def boot_id() -> str:
    """The kernel's random id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of ``pid``; None if it has ended or is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the program's name, may contain spaces and brackets: count fields after it.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


@dataclass(frozen=True)
class ProcessId:
    """One process, distinct from all others with the same pid."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The identity of the running process ``pid``; MachineError if there is none."""
        started = _start_time(pid)
        if started is None:
            raise MachineError(f"process {pid} ended right after it was started")
        return cls(pid, started, boot_id())

    def alive(self) -> bool:
        return self.boot == boot_id() and _start_time(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process, or to none."""
        with suppress(ProcessLookupError), _pidfd(self.pid) as descriptor:
            # The descriptor refers to the process, so the check below is not affected by reuse.
            if self.alive():
                signal.pidfd_send_signal(descriptor.fileno(), number)

    def wait(self, seconds: float) -> bool:
        """Whether the process has ended, waiting up to ``seconds`` for it."""
        with suppress(ProcessLookupError), _pidfd(self.pid) as descriptor:
            if self.alive():
                select.select([descriptor], [], [], max(0.0, seconds))
        with suppress(ChildProcessError):  # it may be a child, or not
            os.waitpid(self.pid, os.WNOHANG)
        return not self.alive()


class _pidfd:
    """A pidfd_open(2) descriptor as a context manager."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._descriptor = -1

    def __enter__(self) -> _pidfd:
        self._descriptor = os.pidfd_open(self._pid)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    input: str | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in its own session.

    Ctrl-C in a terminal goes to every process of the foreground group: in their own session,
    programs that clean up are not interrupted by it. An interruption while waiting ends the whole
    session, so that no grandchild (such as apt under mmdebstrap) keeps running.

    ``output`` collects stdout and stderr in a file instead of in the result.
    """
    sink = output.open("a") if output else None
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=sink or subprocess.PIPE,
            stderr=subprocess.STDOUT if sink else subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **env} if env else None,
            start_new_session=True,
        )
        with child:
            try:
                out, err = child.communicate(input, timeout=timeout)
            except BaseException:
                _end_session(child)
                raise
    finally:
        if sink:
            sink.close()
    result = subprocess.CompletedProcess(list(argv), child.returncode, out or "", err or "")
    if check and result.returncode:
        raise MachineError(failure(result, output))
    return result


def failure(result: subprocess.CompletedProcess[str], log: Path | None = None) -> str:
    """A failed command, its exit status, and the end of its output."""
    said = log.read_text(errors="replace") if log else result.stdout + result.stderr
    tail = "\n".join(said.strip().splitlines()[-15:])
    return f"`{' '.join(result.args)}` ended with {result.returncode}:\n{tail}"


def _end_session(child: subprocess.Popen[str]) -> None:
    """End a child and all processes in its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(5)
            return


def spawn(argv: Sequence[str], log: Path) -> ProcessId:
    """Start a program that runs after this process ends; its output is appended to ``log``."""
    with log.open("ab") as sink:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
    identity = ProcessId.of(child.pid)
    # Popen warns about a child that still runs when the object is deleted; this is intended.
    child.returncode = 0
    return identity


def wait_until(condition: Callable[[], bool], seconds: float, step: float = 0.1) -> bool:
    """Whether ``condition()`` became true within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(step)
    return True
