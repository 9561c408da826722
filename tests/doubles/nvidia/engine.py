"""The engine as an image built for GPUs: the real one, with a double of what it says of them."""

import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from testbed.engine import engine_archive
from testbed.image_registry import ImageRegistry

_SOURCE = Path(__file__).with_name("llama-server.c")


def push_gpu_engine(registry: ImageRegistry) -> str:
    """Put the engine into a registry; returns its full reference, pinned by digest."""
    archive = engine_archive()
    with tempfile.TemporaryDirectory() as scratch:
        program, root = Path(scratch, "llama-server"), Path(scratch, "root.tar")
        subprocess.run(["gcc", "-static", "-s", "-o", str(program), str(_SOURCE)], check=True)
        shutil.copyfile(archive, root)
        with tarfile.open(root, "a") as tar:
            # Ahead of /usr/bin on the image's PATH.
            entry = tarfile.TarInfo("./app/llama-server")
            entry.mode, entry.size = 0o755, program.stat().st_size
            tar.addfile(entry, io.BytesIO(program.read_bytes()))
        return registry.push("llama.cpp", f"{archive.stem.removeprefix('engine-')}-gpu", root)
