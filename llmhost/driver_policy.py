"""From settings to the policy for a host's driver and GPUs."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from llmhost.nvidia.driver import Wish
from llmhost.nvidia.plan import DriverPolicy
from llmhost.settings import Settings
from llmhost.vram.ledger import shortfalls
from llmhost.vram.plan import vram_plan
from llmhost.vram.remedies import remedies


def driver_policy(settings: Settings) -> DriverPolicy:
    """The declared policy for a host with NVIDIA hardware."""
    options, services = settings.nvidia_driver, settings.service_options
    wish = Wish(
        branch=options.branch,
        module=options.module,
        source=options.source,
        allow_unmaintained=options.allow_unmaintained,
        cuda={service: of.cuda for service, of in services.items() if of.cuda},
    )
    return DriverPolicy(
        wish,
        settings.gpu_requests,
        options.managed,
        options.power_limit_watts,
        options.accept_vulnerable_until,
        partial(memory_shortfalls, settings),
    )


def memory_shortfalls(
    settings: Settings, granted: Mapping[str, tuple[int, ...]], gpu_bytes: Sequence[int]
) -> Iterator[str]:
    """What does not fit into the GPUs of the host, with changes that would.

    Models of unknown size, and GPUs without their own memory, do not count.
    """
    for ledger in vram_plan(settings, gpu_bytes, granted).ledgers if granted else ():
        if ledger.total_bytes:
            for sentence in shortfalls(ledger):
                yield f"{sentence}; {'; or '.join(remedies(ledger))}"
