"""`nvidia_driver_*`: the driver of the host's NVIDIA GPUs."""

from typing import Annotated, Literal

from llmhost.nvidia.branches import FLOORS, KNOWN
from llmhost.options.base import Section
from llmhost.options.kind import NUMERIC, Kind
from llmhost.options.types import Date, Fingerprint, Flag, OneOf, RepositoryUrl, text, whole

CudaVersion = Annotated[str, text(r"\d{2}\.\d{1,2}", "a CUDA version", "12.8", NUMERIC)]
"""A CUDA version; what one newer than the matrix needs is assumed."""


def _branch(value: object) -> object:
    if value == "auto" or (type(value) is int and (value in KNOWN or KNOWN[-1] < value < 1000)):
        return value
    raise ValueError


DriverBranch = Annotated[
    Literal["auto"] | int,
    Kind(
        _branch,
        f"'auto' or one of the driver branches {', '.join(map(str, KNOWN))}, or a newer one",
        580,
        NUMERIC,
    ),
]


class NvidiaDriver(Section):
    """Which driver, and how it is kept. Without an NVIDIA GPU the host stays unchanged."""

    managed: Flag = True
    """Set it to False where something else installs the driver: it is then checked, never
    changed."""

    branch: DriverBranch = "auto"
    """Driver branch such as 580. `auto`: the oldest branch with security fixes that the source
    offers, and that supports every GPU and the CUDA version of every service."""

    module: OneOf[Literal["auto", "open", "closed"]] = "auto"
    """Kernel module. `auto`: open from Turing on, closed for Maxwell, Pascal and Volta."""

    source: OneOf[Literal["auto", "distribution", "nvidia"]] = "auto"
    """`distribution`: the packages of Ubuntu or Debian. `nvidia`: NVIDIA's own repository. `auto`:
    the distribution on Ubuntu, whose modules are signed; NVIDIA on Debian, whose own are old."""

    allow_unmaintained: Flag = False
    """Accept a branch that no longer gets security fixes."""

    accept_vulnerable_until: Date | None = None
    """Until this day, a driver with known security holes is neither replaced nor refused nor
    reported. Otherwise it is replaced as soon as the host's package sources offer a fixed version
    (refused with `nvidia_driver_managed = False`), and reported until then."""

    repository_url: RepositoryUrl = "https://developer.download.nvidia.com/compute/cuda/repos"
    """Base URL of NVIDIA's repositories, for `nvidia_driver_source = "nvidia"`; set it to a site's
    mirror."""

    repository_fingerprint: Fingerprint | None = None
    """Fingerprint of the key that signs the repository, for a mirror that signs with its own: the
    key is fetched beside the packages, from `<last eight digits>.pub`. None: NVIDIA's key."""

    reboot: OneOf[Literal["when_needed", "never"]] = "when_needed"
    """`when_needed`: the run reboots the host for a new driver and waits. `never`: the run stops,
    reports that a reboot is needed, and leaves the stack unchanged."""

    reboot_timeout_seconds: Annotated[int, whole(60, 7200, "seconds", 900)] = 900
    """Longest wait for the host to come back."""

    power_limit_watts: Annotated[int, whole(50, 2000, "watts", 300)] | None = None
    """Power limit of each GPU, kept over reboots; none: the GPU's own default."""

    @property
    def security_floors(self) -> dict[int, str]:
        """By branch: the first version without known security holes."""
        return FLOORS

    @property
    def probe_directory(self) -> str:
        """Where the NVML probe and its library are kept on the host."""
        return "/usr/local/lib/llmhost/nvml"

    @property
    def probe_command(self) -> str:
        """Prints what NVML knows as JSON; isolated, so that only its own directory is searched."""
        return f"python3 -B -s -E {self.probe_directory}/nvml_probe.py"
