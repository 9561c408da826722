"""Whether a host can become an LLM server: sentences, each with a fix."""

from collections.abc import Iterator

from llmhost.docker.packages import unsupported
from llmhost.system.host_identity import HostIdentity
from llmhost.units import gib, gib_to_bytes

SUPPORTED = {
    "ubuntu": ("22.04", "24.04", "26.04"),
    "debian": ("12", "13"),
}
ARCHITECTURES = ("amd64", "arm64")
# A host that already has its images needs space for a small change only.
FREE_GIB_WHEN_DEPLOYED = 1.0


def findings(
    identity: HostIdentity,
    *,
    docker_source: str,
    min_memory_gib: float,
    min_free_disk_gib: float,
    max_clock_skew_seconds: float,
    controller_clock: float,
) -> Iterator[str]:
    """Every reason to refuse the host; none if it is suitable. `controller_clock` in epoch
    seconds."""
    yield from _wrong_system(identity, docker_source)
    yield from _no_power(identity)
    yield from _too_small(identity, min_memory_gib, min_free_disk_gib)
    skew = identity.clock - controller_clock
    if abs(skew) > max_clock_skew_seconds:
        yield (
            f"the host's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the"
            " controller's; set it with: timedatectl set-ntp true"
        )


def _wrong_system(identity: HostIdentity, docker_source: str) -> Iterator[str]:
    if identity.version not in SUPPORTED.get(identity.distribution, ()):
        known = "; ".join(f"{name} {', '.join(all_)}" for name, all_ in SUPPORTED.items())
        yield (
            f"the host runs {identity.distribution} {identity.version}; reinstall it with one of:"
            f" {known}"
        )
    elif problem := unsupported(docker_source, identity.distribution, identity.version):
        yield problem
    if identity.package_architecture not in ARCHITECTURES:
        yield (
            f"the host's architecture is {identity.machine}; llmhost requires one of:"
            f" {', '.join(ARCHITECTURES)}"
        )


def _no_power(identity: HostIdentity) -> Iterator[str]:
    if identity.uid != 0:
        yield (
            f"the deploy runs as {identity.user}, not as root; connect as root, or set `_sudo=True`"
            " for the host in the inventory"
        )
    if identity.init != "systemd" and identity.is_wsl:
        yield (
            "systemd is disabled; add [boot] systemd=true to /etc/wsl.conf, run"
            " `wsl.exe --shutdown` in Windows, and start the distribution again"
        )
    elif identity.init != "systemd":
        yield f"process 1 is {identity.init}, not systemd; llmhost requires systemd as init"


def _too_small(
    identity: HostIdentity, min_memory_gib: float, min_free_disk_gib: float
) -> Iterator[str]:
    memory = identity.memory_kib * 1024
    if memory < gib_to_bytes(min_memory_gib):
        yield (
            f"the host has {gib(memory)} of memory and {min_memory_gib:g} GiB are required; add"
            " memory, or lower preflight_min_memory_gib"
        )
    needed = (
        min(FREE_GIB_WHEN_DEPLOYED, min_free_disk_gib) if identity.deployed else min_free_disk_gib
    )
    for path, free_kib in identity.free_kib.items():
        free = free_kib * 1024
        if free < gib_to_bytes(needed):
            yield (
                f"{path} has {gib(free)} free, but images need {needed:g} GiB: free space, move"
                " docker_data_root, or lower preflight_min_free_disk_gib at your own risk"
            )
