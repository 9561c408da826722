"""`vram_*`: the memory of the GPUs that the models must fit into."""

from typing import Annotated

from pydantic import Field

from llmhost.options.base import Section


class Vram(Section):
    """What the ledger compares the models with."""

    gpus_gib: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Memory of each GPU in GiB, in the order of `nvidia-smi`; the run stops if the models do not
    fit. `nvidia-smi --query-gpu=memory.total --format=csv` prints MiB: divide by 1024."""

    reserve_gib: float = Field(default=0.5, ge=0)
    """Memory left free on each GPU, for a desktop, other programs and fragmentation."""

    @property
    def gpu_bytes(self) -> tuple[int, ...]:
        """The same in bytes."""
        return tuple(int(gib * 2**30) for gib in self.gpus_gib)
