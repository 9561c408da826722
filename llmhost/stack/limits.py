"""Limits of the services' containers, in proportion to their host. Pure."""

from dataclasses import dataclass

from llmhost.docker.compose import Limits
from llmhost.units import GIB, bytes_of

CPU_SHARES = 512
"""Half of Docker's default weight: when the processors are busy, the host's own services come
first. A quota would slow engines down even on an idle host."""

_LEAST_PIDS = 512
_PIDS_PER_THREAD = 32
"""llama.cpp alone keeps a thread for HTTP and one for computing on each, in each model process."""


@dataclass(frozen=True)
class Capacity:
    """Hardware threads and memory in bytes; zero if unknown."""

    threads: int = 0
    memory_bytes: int = 0


def memory_limit(capacity: Capacity) -> str:
    """The memory limit of a service that declares none: a tenth of the memory, at least 1 GiB,
    stays for the host. Whole GiB: kernels differ in what they take first. Empty: no limit."""
    total = round(capacity.memory_bytes / GIB)
    limit = total - max(1, total // 10)
    return f"{limit}g" if limit > 0 else ""


_PIDS_OF_GROUP = 1024
"""In addition, for the processes of Ray, each of which has some 20 threads, and for its workers."""


def limits(
    declared_memory: str | None, capacity: Capacity, *, hardened: bool, in_group: bool = False
) -> Limits:
    """The limits of one service; not `hardened`: only those of memory that are declared, and that
    of processes."""
    memory = declared_memory or (memory_limit(capacity) if hardened else "")
    return Limits(
        pids=max(_LEAST_PIDS, _PIDS_PER_THREAD * capacity.threads) + in_group * _PIDS_OF_GROUP,
        memory=bytes_of(memory) if memory else 0,
        cpus=(str(CPU_SHARES),) if hardened else (),
    )
