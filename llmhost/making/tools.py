"""Programs that make models: where they are, which version they have, and how to run them."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llmhost.resources import FILES

QUANTIZE = "llama-quantize"
IMPORTANCE = "llama-imatrix"
PERPLEXITY = "llama-perplexity"
BENCH = "llama-bench"
SERVER = "llama-server"
CONVERTER = "convert_hf_to_gguf.py"
LORA_CONVERTER = "convert_lora_to_gguf.py"
PYTHON = "python3"
"""With torch, transformers, onnx and onnxruntime."""
COMPRESSOR = "python3 with llmcompressor"
"""The same program in another environment: the first word is the program's name."""

_DEBIAN_CONVERTER = Path("/usr/share/doc/llama.cpp-tools/scripts", CONVERTER)
_VERSION = re.compile(r"version: (.+)")
ONNX_PROGRAM = FILES / "making" / "onnx_model.py"
COMPRESS_PROGRAM = FILES / "making" / "compress.py"
_PROGRAMS = {PYTHON: ONNX_PROGRAM, COMPRESSOR: COMPRESS_PROGRAM}
"""What these run."""

_LAST_LINES = 3
_POLL_SECONDS = 0.05

_FOR_CONVERTERS = "python3-torch python3-transformers python3-sentencepiece python3-gguf"
_PACKAGES = {
    QUANTIZE: "llama.cpp-tools",
    BENCH: "llama.cpp-tools",
    SERVER: "llama.cpp-tools",
    IMPORTANCE: "llama.cpp-tools-extra",
    PERPLEXITY: "llama.cpp-tools-extra",
    CONVERTER: f"llama.cpp-tools {_FOR_CONVERTERS}",
    PYTHON: "python3-torch python3-transformers python3-onnx python3-onnxruntime",
}
"""Packages of Debian 14 and Ubuntu 26.04."""


class MakingError(Exception):
    """Why a model is not made; the text continues a sentence that begins with its name."""


@dataclass(frozen=True)
class Ran:
    """A program that has ended: its output, and what it took."""

    output: str
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Tools:
    """Tools in a directory, or on the PATH if it is None. `threads` is for those that calculate
    with models; None is llama.cpp's default, as many as there are cores."""

    directory: Path | None = None
    threads: int | None = None

    def command(self, name: str) -> list[str]:
        """The beginning of a command line. Raises MakingError if the tool is missing."""
        where = str(self.directory) if self.directory else None
        if found := shutil.which(name.split()[0], path=where):
            return [found]
        if name == CONVERTER and self.directory is None and _DEBIAN_CONVERTER.is_file():
            return ["python3", str(_DEBIAN_CONVERTER)]
        raise MakingError(
            f"needs the program {name}, which is not {f'in {where}' if where else 'on the PATH'}:"
            f" {_advice(name)}"
        )

    @property
    def thread_options(self) -> list[str]:
        """Options of perplexity, imatrix, bench and server."""
        return ["--threads", str(self.threads)] if self.threads else []

    def version(self, name: str) -> str:
        """What a tool says about its version. All of llama.cpp's programs have that of the server,
        and most of them print no other. Raises MakingError if it does not start."""
        self.command(name)
        if name == CONVERTER:
            self.run(name, ["--help"])
        if name in _PROGRAMS:
            output = self._versions_in_python(name)
        else:
            output = self.run(SERVER, ["--version"]).output
        found = _VERSION.search(output)
        return found[1].strip() if found else "unknown"

    def _versions_in_python(self, name: str) -> str:
        try:
            return self.run(name, ["-c", _PROGRAMS[name].read_text(), "versions"]).output
        except MakingError as error:
            raise MakingError(f"{error}; {_advice(name)}") from None

    def run(self, name: str, arguments: Sequence[str], directory: Path | None = None) -> Ran:
        """Run a tool to its end, in this directory. Raises MakingError with its last lines if it
        fails."""
        started = time.monotonic()
        command = [*self.command(name), *arguments]
        with Measured(command, directory) as process:
            peak = process.wait()
            output = process.output()
            if process.returncode:
                last = " / ".join(output.strip().splitlines()[-_LAST_LINES:])
                raise MakingError(f"cannot be made, because {name} failed: {last or 'no output'}")
        return Ran(output, time.monotonic() - started, peak)


def _advice(name: str) -> str:
    """How to get a tool; continues a sentence."""
    if name == COMPRESSOR:
        return (
            "make a virtual environment, run pip install llmcompressor in it, and give its bin"
            " directory with --tools DIRECTORY"
        )
    if name == LORA_CONVERTER:
        return (
            "no distribution packages it: clone llama.cpp's repository, and give its directory with"
            f" --tools DIRECTORY (it needs {_FOR_CONVERTERS})"
        )
    return (
        f"on Debian 14 or Ubuntu 26.04 run apt-get install {_PACKAGES[name]}, or give a directory"
        " of programs with --tools DIRECTORY"
    )


def end_with_programs() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does: with the programs that it runs, and
    without unfinished files."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    for each in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) is signal.SIG_DFL:  # nohup ignores one of them
            signal.signal(each, end)


class Measured:
    """A running program whose largest memory is watched; ended when the context ends."""

    def __init__(self, command: Sequence[str], directory: Path | None = None) -> None:
        # Both streams as one, in a file: a pipe that nobody reads would stop the program.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 # closed by __exit__
        try:
            self._process = subprocess.Popen(
                command,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=directory,
            )
        except OSError as error:
            self._log.close()
            raise MakingError(f"cannot be made: {command[0]}: {error.strerror}") from None
        self.peak_bytes = 0

    def __enter__(self) -> "Measured":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._log.close()

    @property
    def returncode(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.poll()

    def watch(self) -> bool:
        """Note its memory; whether it still runs."""
        with suppress(OSError):
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            if found := re.search(r"VmHWM:\s+(\d+) kB", status):
                self.peak_bytes = max(self.peak_bytes, int(found[1]) * 1024)
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for its end; its largest memory in bytes."""
        while self.watch():
            time.sleep(_POLL_SECONDS)
        return self.peak_bytes

    def output(self) -> str:
        """What it has printed so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


@contextmanager
def locked(directory: Path, what: str) -> Iterator[None]:
    """A lock that ends with this process; MakingError, "is being `what` by another run", if it is
    another's. Without one where file systems have none, as some NFS."""
    place = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(place)
        raise MakingError(f"is being {what} by another run: wait until that has ended") from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(place)
