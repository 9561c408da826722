"""The bare Debian or Ubuntu of every machine: built once, then read-only."""

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
    # … and has what installers put on every server.
    "ca-certificates",
    "curl",
    "iproute2",
    "procps",
)

MINIMAL_PACKAGES = ("systemd", "systemd-sysv", "dbus", "openssh-server")
"""A machine that boots and accepts logins. `--variant=minbase` adds Debian's required packages and
apt, as in Debian's official container images: no Python, sudo, curl, procps, kmod, iproute2 or
ca-certificates."""

_REVISION = 1
"""Increase it if `_finish` changes, which is not part of the recipe's hash."""

_LOCAL_AUTHORITIES = Path("/usr/local/share/ca-certificates")


def cache() -> Path:
    """Directory of built root file systems and downloaded packages."""
    return Path(os.environ.get("LLMHOST_CACHE", "/var/cache/llmhost")).resolve()


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the content of a root file system."""

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
        # initramfs-tools by name: alternatives to it would need other configuration of what to
        # include.
        extra = (image, "initramfs-tools") if kernel else ()
        options = tuple(transport_options())
        packages = (MINIMAL_PACKAGES if minimal else PACKAGES) + extra
        return cls(suite, packages, archive, options, _digest_of_authorities())

    @property
    def key(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.suite}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def root_file_system(suite: str, *, kernel: bool = False, minimal: bool = False) -> Path:
    """The directory of an unpacked root file system, built if necessary (about 25 s). All machines
    share it: never write to it.
    """
    recipe = Recipe.of(suite, kernel=kernel, minimal=minimal)
    root = cache() / f"rootfs-{recipe.key}"
    if root.is_dir():
        return root
    with _build_lock(recipe.key):
        if not root.is_dir():  # another process may have built it in the meantime
            draft = cache() / f"rootfs-{recipe.key}.draft"
            shutil.rmtree(draft, ignore_errors=True)  # a killed build's
            _bootstrap(recipe, draft)
            _finish(draft)
            os.sync()  # a crash must not leave an incomplete one under this name
            draft.rename(root)
    return root


@contextmanager
def _build_lock(key: str) -> Iterator[None]:
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"rootfs-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# Debian 13's makes every mount of its namespace private, and then `ip netns delete` fails.
MMDEBSTRAP = ("unshare", "--mount", "mmdebstrap", "--mode=root")


def _bootstrap(recipe: Recipe, draft: Path) -> None:
    """mmdebstrap(1) into a directory."""
    sources = cache() / f"rootfs-{recipe.key}.sources"
    sources.write_text(recipe.archive.sources(recipe.suite))
    # It stays in the machine: dpkg then skips fsync, which tests do not need.
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


# The group exists in every Debian (base-passwd). The password * matches nothing, but unlike ! it is
# not a locked account, which sshd refuses.
_OPERATOR = ("-m", "-g", "operator", "-s", "/bin/bash", "-p", "*")


def _finish(root: Path) -> None:
    """Remove what must differ between machines, and add the users."""
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
    """A value that changes with the local certificate authorities of the controller."""
    digest = hashlib.sha256()
    for certificate in sorted(_LOCAL_AUTHORITIES.rglob("*.crt")):
        digest.update(certificate.read_bytes())
    return digest.hexdigest()
