"""A double of nvidia.ko: nothing but the fields that modinfo reads, in a real object file."""

import struct
import subprocess
from pathlib import Path

_MAGIC = b"~Module signature appended~\n"


def build_module(
    path: Path, version: str, *, open_module: bool, signer: str = "", name: str = "nvidia"
) -> None:
    """Compile `path` with this version and licence, signed as kmod understands it if a signer is
    given (include/linux/module_signature.h; the signature itself signs nothing)."""
    licence = "Dual MIT/GPL" if open_module else "NVIDIA"
    fields = "".join(
        f'.asciz "{key}={value}"\n'
        for key, value in {"version": version, "license": licence, "name": name}.items()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["gcc", "-c", "-x", "assembler", "-", "-o", str(path)],
        input=f'.section .modinfo,"a"\n{fields}',
        text=True,
        check=True,
    )
    if signer:
        who, key, signature = signer.encode(), b"\x01" * 20, b"\x02" * 32
        # Signer's name and key id in plain text: id_type 1, which kmod reads without OpenSSL.
        trailer = struct.pack(">5B3xI", 1, 4, 1, len(who), len(key), len(signature))
        with path.open("ab") as module:
            module.write(who + key + signature + trailer + _MAGIC)
