"""Which GPUs of a host something runs on."""

from typing import Annotated

from llmhost.options.kind import NUMERIC, Kind, each_of
from llmhost.options.types import text, whole


def _gpu(value: object) -> object:
    """One GPU, or a list of them."""
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError
        return each_of(_ONE_GPU, value)
    return _ONE_GPU.read(value)


def _one_gpu(value: object) -> object:
    return _GPU_UUID.read(value) if isinstance(value, str) else _GPU_NUMBER.read(value)


_GPU_NUMBER = whole(0, 255)
_GPU_UUID = text(r"GPU-[0-9a-f-]{36}", "", "")
_ONE_GPU = Kind(_one_gpu, "the number or the UUID (GPU-…) of a GPU", 0, NUMERIC)
OneGpu = Annotated[int | str, _ONE_GPU]
"""A GPU's number in `nvidia-smi`, or its UUID, as `nvidia-smi -L` prints it."""

Gpus = Annotated[
    int | str | tuple[int | str, ...],
    Kind(_gpu, "the number or the UUID (GPU-…) of a GPU, or a list of them", 0, NUMERIC),
]
"""One GPU, or several."""
