"""`nvidia_driver_*`: the driver of the host's NVIDIA GPUs."""

from typing import Annotated, Literal

from llmhost.nvidia.cuda import own_driver
from llmhost.nvidia.driver import FLOORS, KNOWN_BRANCHES
from llmhost.options.base import Section
from llmhost.options.kind import NUMERIC, Kind, Mistake
from llmhost.options.types import Fingerprint, Flag, OneOf, RepositoryUrl, text, whole

_CUDA = text(r"\d{2}\.\d", "a CUDA version", "12.8", NUMERIC)


def _known_cuda(value: object) -> object:
    found = str(_CUDA.read(value))
    try:
        own_driver(found)
    except ValueError as error:
        raise Mistake(f"names CUDA {error}; write a version such as '12.8'") from None
    return found


CudaVersion = Annotated[str, Kind(_known_cuda, _CUDA.expected, _CUDA.example, NUMERIC)]
"""A CUDA version whose requirements on the driver are known."""


def _known_branch(value: object) -> object:
    if value != "auto" and (type(value) is not int or value not in KNOWN_BRANCHES):
        raise ValueError
    return value


DriverBranch = Annotated[
    Literal["auto"] | int,
    Kind(
        _known_branch,
        f"'auto' or one of the driver branches {', '.join(map(str, KNOWN_BRANCHES))}",
        580,
        NUMERIC,
    ),
]


class NvidiaDriver(Section):
    """Which driver to install, and how to maintain it. A host without an NVIDIA GPU does not
    change."""

    managed: Flag = True
    """False only checks the driver and never changes it. Use it where something else installs the
    driver."""

    branch: DriverBranch = "auto"
    """Driver branch such as 580. `auto`: the long-term branch, or the newest maintained one if a
    GPU or a service's CUDA version requires it."""

    module: OneOf[Literal["auto", "open", "closed"]] = "auto"
    """Kernel module. `auto`: open for Turing and newer, closed for Maxwell, Pascal and Volta."""

    source: OneOf[Literal["auto", "distribution", "nvidia"]] = "auto"
    """`distribution`: packages of Ubuntu or Debian. `nvidia`: NVIDIA's repository. `auto`: the
    distribution on Ubuntu, whose modules are signed; NVIDIA on Debian, whose packages are old."""

    allow_unmaintained: Flag = False
    """Accept a branch without security updates."""

    repository_url: RepositoryUrl = "https://developer.download.nvidia.com/compute/cuda/repos"
    """Base URL of NVIDIA's repositories, for `nvidia_driver_source = "nvidia"`; set it to a mirror
    if the site has one."""

    repository_fingerprint: Fingerprint | None = None
    """For a mirror that signs with its own key: the key's fingerprint. The key is downloaded from
    the repository, at `<last eight digits>.pub`. None: NVIDIA's key."""

    reboot: OneOf[Literal["when_needed", "never"]] = "when_needed"
    """`when_needed`: the deploy reboots the host for a new driver and waits. `never`: the deploy
    stops before the stack and reports that a reboot is needed."""

    reboot_timeout_seconds: Annotated[int, whole(60, 7200, "seconds", 900)] = 900
    """Maximum wait for the host after a reboot."""

    power_limit_watts: Annotated[int, whole(50, 2000, "watts", 300)] | None = None
    """Power limit of each GPU, also after a reboot; none: the GPU's default."""

    @property
    def security_floors(self) -> dict[int, str]:
        """By branch: the first version without known security holes."""
        return FLOORS

    @property
    def probe_directory(self) -> str:
        """Directory of the NVML probe and its library on the host."""
        return "/usr/local/lib/llmhost/nvml"

    @property
    def probe_command(self) -> str:
        """Prints NVML's data as JSON; isolated, so that Python searches only its own directory."""
        return f"python3 -B -s -E {self.probe_directory}/nvml_probe.py"
