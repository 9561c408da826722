"""The bare Debian or Ubuntu that every machine starts from: built once, then only read."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.apt import Archive, transport_options
from testbed.process import run

PACKAGES = (
    # A system that boots, …
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus",
    "libpam-systemd",
    "systemd-timesyncd",
    "kmod",
    # … can be logged in to, …
    "openssh-server",
    "sudo",
    "python3",
    # … and has what every installer of a server leaves on it.
    "ca-certificates",
    "curl",
    "iproute2",
    "procps",
)

MINIMAL_PACKAGES = ("systemd", "systemd-sysv", "dbus", "openssh-server")
"""A machine that boots and can be logged in to. `--variant=minbase` adds what Debian calls required
and apt, as in Debian's official container images: no Python, sudo, curl, procps, kmod, iproute2 or
ca-certificates."""

_REVISION = 1
"""Raise it when `_finish` changes: what it does is not part of the recipe's hash."""

_LOCAL_AUTHORITIES = Path("/usr/local/share/ca-certificates")


def cache() -> Path:
    """Where built root file systems and downloaded packages are kept."""
    return Path(os.environ.get("LLMHOST_CACHE", "/var/cache/llmhost")).resolve()


@dataclass(frozen=True)
class Recipe:
    """All that decides what a root file system contains."""

    suite: str
    packages: tuple[str, ...]
    archive: Archive
    options: tuple[str, ...]
    authorities: str
    revision: int = _REVISION

    @classmethod
    def of(cls, suite: str, *, kernel: bool = False, minimal: bool = False) -> Recipe:
        archive = Archive.of_controller()
        image = "linux-image-cloud-amd64" if archive.distribution == "debian" else "linux-virtual"
        # initramfs-tools by name: alternatives to it would not be told what to include.
        extra = (image, "initramfs-tools") if kernel else ()
        options = tuple(transport_options())
        packages = (MINIMAL_PACKAGES if minimal else PACKAGES) + extra
        return cls(suite, packages, archive, options, _digest_of_authorities())

    @property
    def key(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.suite}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def root_file_system(suite: str, *, kernel: bool = False, minimal: bool = False) -> Path:
    """The directory of an unpacked root file system, built first if need be (about 25 s).

    It is shared by all machines and must never be written to.
    """
    recipe = Recipe.of(suite, kernel=kernel, minimal=minimal)
    root = cache() / f"rootfs-{recipe.key}"
    if root.is_dir():
        return root
    with _build_lock(recipe.key):
        if not root.is_dir():  # another process may have built it while we waited
            draft = cache() / f"rootfs-{recipe.key}.draft"
            shutil.rmtree(draft, ignore_errors=True)  # a killed build's
            _bootstrap(recipe, draft)
            _finish(draft)
            os.sync()  # before the name appears, so that a crash can not leave a half one under it
            draft.rename(root)
    return root


@contextmanager
def _build_lock(key: str) -> Iterator[None]:
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"rootfs-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# Debian 13's makes every mount of its namespace private: `ip netns delete` fails afterwards.
MMDEBSTRAP = ("unshare", "--mount", "mmdebstrap", "--mode=root")


def _bootstrap(recipe: Recipe, draft: Path) -> None:
    """mmdebstrap(1) into a directory."""
    sources = cache() / f"rootfs-{recipe.key}.sources"
    sources.write_text(recipe.archive.sources(recipe.suite))
    # Kept in the machine: dpkg then leaves out fsync, which tests gain nothing from.
    options = [f"--aptopt={option}" for option in recipe.options] + ["--dpkgopt=force-unsafe-io"]
    include = ["--include", ",".join(recipe.packages)]
    log = cache() / f"rootfs-{recipe.key}.log"
    log.unlink(missing_ok=True)
    run(
        [
            *MMDEBSTRAP,
            "--variant=minbase",
            *options,
            *include,
            recipe.suite,
            str(draft),
            str(sources),
        ],
        output=log,
    )
    placed = next((draft / "etc/apt/sources.list.d").iterdir())
    placed.rename(placed.with_name(f"{recipe.archive.distribution}.sources"))


# The group exists in every Debian (base-passwd). A password of * can not be typed, but unlike ! it
# does not count as a locked account, which sshd turns away.
_OPERATOR = ("-m", "-g", "operator", "-s", "/bin/bash", "-p", "*")


def _finish(root: Path) -> None:
    """Take out what must differ between machines, put in who may log in."""
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "etc/machine-id").write_text("")
    run(["chroot", str(root), "useradd", *_OPERATOR, "operator"])
    rule = root / "etc/sudoers.d/operator"
    if rule.parent.is_dir():
        rule.write_text("operator ALL=(ALL:ALL) NOPASSWD: ALL\n")
        rule.chmod(0o440)
    if _LOCAL_AUTHORITIES.is_dir():
        target = root / _LOCAL_AUTHORITIES.relative_to("/")
        shutil.copytree(_LOCAL_AUTHORITIES, target, dirs_exist_ok=True)
        if (root / "usr/sbin/update-ca-certificates").exists():
            run(["chroot", str(root), "update-ca-certificates"])


def _digest_of_authorities() -> str:
    """Changes when the controller begins to trust another certificate authority of its own."""
    digest = hashlib.sha256()
    for certificate in sorted(_LOCAL_AUTHORITIES.rglob("*.crt")):
        digest.update(certificate.read_bytes())
    return digest.hexdigest()
