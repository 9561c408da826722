"""`nvidia_driver_*`: the driver of the host's NVIDIA GPUs."""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from llmhost.nvidia.branches import FLOORS
from llmhost.options.base import Section

CudaVersion = Annotated[str, Field(pattern=r"^\d{2}\.\d{1,2}$")]
"""A CUDA version such as `13.2`; what one newer than llmhost's matrix needs is assumed."""


class NvidiaDriver(Section):
    """Which driver, and how it is kept. Nothing happens on a host without an NVIDIA GPU."""

    managed: bool = True
    """Switch off where somebody else installs the driver: it is then checked and never changed."""

    branch: Literal["auto"] | Annotated[int, Field(ge=500, le=999)] = "auto"
    """Driver branch such as 580. `auto`: the long-term branch, or the newest maintained one if a
    GPU or the CUDA version of a service needs it."""

    module: Literal["auto", "open", "closed"] = "auto"
    """Kernel module. `auto`: open from Turing on, closed for Maxwell, Pascal and Volta."""

    source: Literal["auto", "distribution", "nvidia"] = "auto"
    """`distribution`: the packages of Ubuntu or Debian. `nvidia`: NVIDIA's own repository. `auto`:
    the distribution on Ubuntu, whose modules are signed, NVIDIA on Debian, whose own are old."""

    allow_unmaintained: bool = False
    """Accept a branch that gets no security fixes any more."""

    accept_vulnerable_until: date | None = None
    """Until this day, such as `"2026-12-31"`, a driver with known security holes is neither
    replaced nor refused nor reported. Otherwise it is replaced as soon as the host's package
    sources offer a fixed version (refused with `nvidia_driver_managed = False`), and reported until
    then.
    """

    repository_url: str = Field(
        default="https://developer.download.nvidia.com/compute/cuda/repos",
        pattern=r"^https?://\S+[^/]$",
    )
    """Base of NVIDIA's repositories, for `nvidia_driver_source = "nvidia"`; a site's mirror goes
    here."""

    repository_fingerprint: str | None = Field(default=None, pattern=r"^[0-9A-F]{40}$")
    """Fingerprint of the key that signs the repository, for a mirror that signs with its own: the
    key is fetched beside the packages, from `<last eight digits>.pub`. None: NVIDIA's key."""

    reboot: Literal["when_needed", "never"] = "when_needed"
    """`when_needed`: the run reboots the host for a new driver and waits. `never`: it stops there,
    says that a reboot is needed, and leaves the stack untouched."""

    reboot_timeout_seconds: int = Field(default=900, ge=60, le=7200)
    """Longest wait for the host to come back."""

    power_limit_watts: int | None = Field(default=None, ge=50, le=2000)
    """Most power that each GPU may draw, kept over reboots; none: what the GPU comes with."""

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
