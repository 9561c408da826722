"""What a CUDA version asks of the driver."""

from collections.abc import Iterator, Mapping

from llmhost.nvidia.data import MATRIX, Version, version

KNOWN_CUDA = tuple(MATRIX.cuda_drivers)
"""CUDA versions of which the driver is known."""


def own_driver(cuda: str) -> Version:
    """Driver that this CUDA version was released with; of one not listed, that of the next, and of
    one newer than the list, that of the newest."""
    wanted = version(cuda)
    later = [known for known in MATRIX.cuda_drivers if version(known) >= wanted]
    return version(MATRIX.cuda_drivers[min(later, key=version, default=MATRIX.newest_cuda)])


def floor(cuda: str) -> int:
    """Oldest branch on which this CUDA version runs at all."""
    major = version(cuda)[0]
    newest = max(MATRIX.cuda_oldest)
    return MATRIX.cuda_oldest.get(min(major, newest), own_driver(cuda)[0])


def unknown(services: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each service (name to CUDA version) whose CUDA is newer than the list."""
    for service, cuda in services.items():
        if version(cuda) > version(MATRIX.newest_cuda):
            yield (
                f"service '{service}' uses CUDA {cuda}, newer than `llmhost nvidia` knows "
                f"({MATRIX.newest_cuda} on {MATRIX.checked}): assuming that it needs driver "
                f"{dotted(own_driver(cuda))} or newer"
            )


def too_old(driver: Version, services: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each service (name to CUDA version) that cannot run on this driver."""
    for service, cuda in services.items():
        if driver[0] < floor(cuda):
            yield (
                f"service '{service}' needs CUDA {cuda}, which needs driver branch {floor(cuda)} "
                f"or newer; this is {dotted(driver)}"
            )


def at_risk(driver: Version, services: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each service that runs only by minor-version compatibility.

    Such a program works as long as it carries machine code for the GPU; an older
    driver cannot compile PTX of a newer CUDA (seen: a CUDA 13.2 vLLM on R580 ended with
    cudaErrorUnsupportedPtxVersion).
    """
    for service, cuda in services.items():
        if floor(cuda) <= driver[0] and driver < own_driver(cuda):
            yield (
                f"service '{service}' is built with CUDA {cuda}, whose own driver is "
                f"{dotted(own_driver(cuda))}; on {dotted(driver)} code that comes as PTX fails "
                "with cudaErrorUnsupportedPtxVersion"
            )


def dotted(numbers: Version) -> str:
    """NVIDIA writes the last part with two digits."""
    first, *rest = numbers
    return ".".join([str(first), *(f"{number:02d}" for number in rest)])
