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
    """Which driver to install, and how to maintain it. A host without an NVIDIA GPU does not
    change."""

    managed: Flag = True
    """False only checks the driver and never changes it. Use it where something else installs the
    driver."""

    branch: DriverBranch = "auto"
    """Driver branch such as 580. `auto`: the oldest branch with security fixes that the source
    offers, and that supports every GPU and the CUDA version of every service."""

    module: OneOf[Literal["auto", "open", "closed"]] = "auto"
    """Kernel module. `auto`: open for Turing and newer, closed for Maxwell, Pascal and Volta."""

    source: OneOf[Literal["auto", "distribution", "nvidia"]] = "auto"
    """`distribution`: packages of Ubuntu or Debian. `nvidia`: NVIDIA's repository. `auto`: the
    distribution on Ubuntu, whose modules are signed; NVIDIA on Debian, whose packages are old."""

    allow_unmaintained: Flag = False
    """Accept a branch without security updates."""

    accept_vulnerable_until: Date | None = None
    """Accept a driver with known vulnerabilities until this day. Without it, the deploy replaces
    the driver when the host's package sources offer a fixed version (or refuses it if
    `nvidia_driver_managed = False`), and reports it until then."""

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
        """By branch: the first version without known vulnerabilities."""
        return FLOORS

    @property
    def probe_directory(self) -> str:
        """Directory of the NVML probe and its library on the host."""
        return "/usr/local/lib/llmhost/nvml"

    @property
    def probe_command(self) -> str:
        """Prints NVML's data as JSON; isolated, so that Python searches only its own directory."""
        return f"python3 -B -s -E {self.probe_directory}/nvml_probe.py"
