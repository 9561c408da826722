"""`vram_*`: the GPU memory for the models."""

from llmhost.options.base import Section
from llmhost.options.types import AnyItems, Gib, SomeGib
from llmhost.units import gib_to_bytes


class Vram(Section):
    """GPU memory for the VRAM ledger."""

    gpus_gib: AnyItems[SomeGib] = ()
    """Memory of each GPU in GiB, in the order of `nvidia-smi`; a deploy stops if the models do not
    fit. `nvidia-smi --query-gpu=memory.total --format=csv` prints MiB: divide by 1024."""

    reserve_gib: Gib = 0.5
    """Memory to leave free on each GPU, for a desktop, other programs and fragmentation."""

    @property
    def gpu_bytes(self) -> tuple[int, ...]:
        """The same in bytes."""
        return tuple(gib_to_bytes(each) for each in self.gpus_gib)
