"""SmolLM2-135M-Instruct as a repository that can be trained, and adapters for llama.cpp.

The package of testbed/smollm2.py has the model as GGUF only. Its weights are written as safetensors
with 32 bits, in which they are exactly those of the GGUF: what is trained on one fits the other.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGUFType, GGUFWriter, Keys, get_tensor_name_map
from numpy.typing import NDArray

from testbed import environments, smollm2
from testbed.rootfs import cache

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
LAYERS = 30
_HEADS = {"q_proj": 9, "k_proj": 3}
_PREFIX = "base_model.model."
_PROGRAM = """
import sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
source, target = Path(sys.argv[1]), sys.argv[2]
model = AutoModelForCausalLM.from_pretrained(
    source.parent, gguf_file=source.name, dtype=torch.float32
)
# The weights are no longer quantized, and transformers would refuse to save those that are.
del model.config.quantization_config
model.hf_quantizer = None
model.save_pretrained(target)
AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)
"""


def environment() -> Path:
    """A Python with what trains: the interpreter's path."""
    return environments.installed("training") / "bin/python"


def repository() -> Path:
    """The model's directory in the cache, made if it is not there (1 min, 0.5 GB); its path ends
    with the model's name at the hub. Raises PackageUnavailableError."""
    home = cache() / "models" / HUB_NAME
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.is_dir():
            draft = home.with_suffix(".draft")
            shutil.rmtree(draft, ignore_errors=True)
            command = [str(environment()), "-c", _PROGRAM, str(smollm2.gguf()), str(draft)]
            subprocess.run(command, check=True, capture_output=True, timeout=600)
            for file in draft.iterdir():
                file.chmod(0o644)
            draft.rename(home)
    return home


def write_lora_gguf(adapter: Path, target: Path) -> None:
    """An adapter of this model as llama.cpp reads it. Debian has no converter for adapters."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    writer = GGUFWriter(target, "llama")
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, float(config["lora_alpha"]))
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, LAYERS)
    for theirs, tensor in tensors(adapter / "adapter_model.safetensors").items():
        module, _, part = theirs.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
        ours = names.get_name(module)
        assert ours and part in ("lora_A", "lora_B"), theirs
        heads = _HEADS.get(module.rpartition(".")[2])
        values = _interleaved(tensor, heads) if heads and part == "lora_B" else tensor
        writer.add_tensor(f"{ours}.weight.{part.lower()}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(file: Path) -> dict[str, NDArray[np.float32]]:
    """Those of a safetensors file with 32-bit numbers."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    found = {}
    for name, each in header.items():
        if name != "__metadata__":
            assert each["dtype"] == "F32", name
            start, end = (8 + size + offset for offset in each["data_offsets"])
            found[name] = np.frombuffer(data[start:end], np.float32).reshape(each["shape"])
    return found


def _interleaved(tensor: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rotary positions turn pairs of rows: transformers has the two halves of a head one after the
    other, and llama.cpp each pair together."""
    rows, columns = tensor.shape
    halves = tensor.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))
