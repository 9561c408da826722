"""`vram_*`: the GPU memory that the models must fit into."""

from llmhost.options.base import Section
from llmhost.options.types import AnyItems, Gib, SomeGib
from llmhost.units import gib_to_bytes


class Vram(Section):
    """What the ledger compares the models with."""

    gpus_gib: AnyItems[SomeGib] = ()
    """Memory of each GPU in GiB, in the order of `nvidia-smi`; the run stops if the models do not
    fit. `nvidia-smi --query-gpu=memory.total --format=csv` prints MiB: divide by 1024."""

    reserve_gib: Gib = 0.5
    """Memory left free on each GPU, for a desktop, other programs and fragmentation."""

    @property
    def gpu_bytes(self) -> tuple[int, ...]:
        """The same in bytes."""
        return tuple(gib_to_bytes(each) for each in self.gpus_gib)
