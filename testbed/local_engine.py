"""llama.cpp's server with the tiny model: a real engine on this machine, without a container."""

from __future__ import annotations

import signal
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from testbed import tiny_model
from testbed.engine import engine_archive
from testbed.process import ProcessId, spawn, wait_until


@contextmanager
def local_engine(
    directory: Path, port: int, address: str = "127.0.0.1", options: Sequence[str] = ()
) -> Iterator[str]:
    """Run the engine in its own file system below `directory`, as in a container.

    Yields its URL. Needs root.
    """
    root = directory / "root"
    root.mkdir()
    with tarfile.open(engine_archive()) as archive:
        archive.extractall(root, filter="fully_trusted")
    tiny_model.write(root / "tiny.gguf")
    url = f"http://{address}:{port}"
    program = ["llama-server", "-m", "/tiny.gguf", "-c", "512"]
    program += ["--host", address, "--port", str(port), *options]
    enter = 'mount --bind /dev "$0/dev"; mount -t proc proc "$0/proc"; exec chroot "$0" "$@"'
    isolated = ["unshare", "--mount", "sh", "-c", enter, str(root), *program]
    process = spawn(isolated, directory / "server.log")
    try:
        assert wait_until(lambda: _healthy(process, url), 30)
        yield url
    finally:
        process.send(signal.SIGKILL)
        process.wait(10)


def _healthy(process: ProcessId, url: str) -> bool:
    assert process.alive()
    try:
        return httpx.get(f"{url}/health").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
