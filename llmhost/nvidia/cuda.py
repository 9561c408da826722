"""What a CUDA version asks of the driver. Figures: CUDA release notes, table "CUDA Toolkit and
Corresponding Driver Versions"; minor-version compatibility: CUDA compatibility guide."""

from collections.abc import Iterator, Mapping

Version = tuple[int, ...]

# CUDA version: the driver that its toolkit was released with.
_OWN_DRIVER = {
    "11.8": "520.61.05",
    "12.0": "525.60.13",
    "12.4": "550.54.14",
    "12.6": "560.28.03",
    "12.8": "570.26",
    "12.9": "575.51.03",
    "13.0": "580.65.06",
    "13.1": "590.44.01",
    "13.2": "595.45.04",
    "13.3": "610.43.02",
}
# Major version: the oldest branch on which programs of every minor version run.
_FLOOR = {11: 450, 12: 525, 13: 580}

KNOWN_CUDA = tuple(_OWN_DRIVER)
"""CUDA versions that a service may name."""


def version(text: str) -> Version:
    """Numbers of a driver version such as `580.159.03` or `580.159.03-0ubuntu0.24.04.1`."""
    upstream = text.partition(":")[2] or text
    numbers = upstream.replace("-", "+").partition("+")[0].split(".")
    return tuple(int(number) for number in numbers if number.isdigit())


def own_driver(cuda: str) -> Version:
    """Driver that this CUDA version was released with; of one not listed, that of the next.

    Raises ValueError for a version newer than the table.
    """
    wanted = version(cuda)
    for known, driver in _OWN_DRIVER.items():
        if version(known) >= wanted:
            return version(driver)
    raise ValueError(f"{cuda} is newer than {KNOWN_CUDA[-1]}, the newest CUDA that llmhost knows")


def floor(cuda: str) -> int:
    """Oldest branch on which this CUDA version runs at all."""
    major = version(cuda)[0]
    return _FLOOR.get(major, own_driver(cuda)[0])


def too_old(driver: Version, services: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each service (name to CUDA version) that can not run on this driver."""
    for service, cuda in services.items():
        if driver[0] < floor(cuda):
            yield (
                f"service '{service}' needs CUDA {cuda}, which needs driver branch {floor(cuda)} "
                f"or newer; this is {_dotted(driver)}"
            )


def at_risk(driver: Version, services: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each service that runs only by minor-version compatibility.

    Such a program works as long as it carries machine code for the GPU; PTX of a newer CUDA can
    not be compiled by an older driver (seen: a CUDA 13.2 vLLM on R580 ended with
    cudaErrorUnsupportedPtxVersion).
    """
    for service, cuda in services.items():
        if floor(cuda) <= driver[0] and driver < own_driver(cuda):
            yield (
                f"service '{service}' is built with CUDA {cuda}, whose own driver is "
                f"{_dotted(own_driver(cuda))}; on {_dotted(driver)} code that comes as PTX fails "
                "with cudaErrorUnsupportedPtxVersion"
            )


def _dotted(numbers: Version) -> str:
    """NVIDIA writes the last part with two digits."""
    first, *rest = numbers
    return ".".join([str(first), *(f"{number:02d}" for number in rest)])
