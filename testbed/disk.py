"""A machine's disk: a copy-on-write layer over the shared root file system."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from testbed.process import MachineError, run
from testbed.rootfs import cache
from testbed.ssh import make_key, public_key

_ARCHIVES = Path("var/cache/apt/archives")


@dataclass(frozen=True)
class Disk:
    """The directories of one machine's disk.

    ``upper`` must be on a file system that supports an overlay: a disk's does, an overlay's does
    not.
    """

    directory: Path
    lower: Path

    @property
    def root(self) -> Path:
        """Mount point of the whole file system while the machine runs."""
        return self.directory / "root"

    @property
    def upper(self) -> Path:
        return self.directory / "upper"

    def volume(self, path: str) -> Path:
        """The directory of ``path`` of the machine, outside the overlay."""
        return self.directory / "volumes" / path.strip("/").replace("/", "-")

    def mount(self) -> None:
        """Mount the overlay, if it is not."""
        for part in ("root", "upper", "work"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        if self.root.is_mount():
            return
        if not self.lower.is_dir():
            raise MachineError(f"the cache lost {self.lower}, and machines on it: remove this LAN")
        if any(character in str(self.directory) for character in ",:"):
            raise MachineError(
                f"overlayfs does not support a path with , or : in it: {self.directory}"
            )
        layers = f"lowerdir={self.lower},upperdir={self.upper},workdir={self.directory}/work"
        run(["mount", "-t", "overlay", "overlay", "-o", layers, str(self.root)])

    def unmount(self) -> None:
        if self.root.is_mount():
            # Lazily: a process that is just ending may still use it for a moment.
            run(["umount", "--lazy", str(self.root)])

    def lend_packages(self, suite: str) -> None:
        """Copy packages that earlier machines downloaded to the apt cache of this one.

        As hard links, made before the overlay is mounted: no copies, and no directory shared by
        machines, because apt locks it. apt itself never writes into a package file.
        """
        archives = self.upper / _ARCHIVES
        archives.mkdir(parents=True, exist_ok=True)
        for package in _shared_archives(suite).glob("*.deb"):
            _link(package, archives / package.name)

    def collect_packages(self, suite: str) -> None:
        """Keep the packages that this machine downloaded for the next ones."""
        shared = _shared_archives(suite)
        for package in (self.upper / _ARCHIVES).glob("*.deb"):
            # apt checks only the size of a cached file: a double's package would remain after a
            # change.
            with package.open("rb") as file:
                double = b"@llmhost.invalid" in file.read(8192)
            if not double and not (shared / package.name).exists():
                draft = shared / f"{package.name}.{uuid.uuid4().hex}"
                _link(package, draft)
                draft.replace(shared / package.name)

    @property
    def host_key(self) -> Path:
        return self.directory / "ssh_host_ed25519_key"

    def individualise(self, name: str, client_key: str) -> None:
        """Write the identity of this machine; the overlay must be mounted."""
        etc = self.root / "etc"
        (etc / "hostname").write_text(f"{name}\n")
        (etc / "hosts").write_text(_HOSTS.format(name=name))
        (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (etc / "resolv.conf").unlink(missing_ok=True)  # may be a link
        (etc / "resolv.conf").write_text(name_servers())
        bundle = Path("etc/ssl/certs/ca-certificates.crt")
        if (self.root / bundle).exists():
            shutil.copyfile(Path("/", bundle), self.root / bundle)
        make_key(self.host_key, f"root@{name}")
        for suffix in ("", ".pub"):
            key = self.host_key.with_suffix(suffix)
            shutil.copy2(key, etc / "ssh" / key.name)
        for home in ("root", "home/operator"):
            _authorise(self.root / home, client_key)

    def public_host_key(self) -> str:
        return public_key(self.host_key)


_HOSTS = """\
127.0.0.1\tlocalhost
127.0.1.1\t{name}
::1\tlocalhost ip6-localhost ip6-loopback
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def _shared_archives(suite: str) -> Path:
    shared = cache() / "archives" / suite
    shared.mkdir(parents=True, exist_ok=True)
    return shared


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _authorise(home: Path, client_key: str) -> None:
    """Allow ``client_key`` to log in to the account with this home."""
    owner = home.stat()
    directory = home / ".ssh"
    directory.mkdir(mode=0o700, exist_ok=True)
    keys = directory / "authorized_keys"
    keys.write_text(f"{client_key}\n")
    keys.chmod(0o600)
    for path in (directory, keys):
        os.chown(path, owner.st_uid, owner.st_gid)


RESOLVER_FILES = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")


def name_servers() -> str:
    """resolv.conf(5) of the controller, adapted for another machine.

    A resolver on a loopback address (systemd-resolved's stub) is not reachable from elsewhere;
    systemd-resolved keeps the list of the real ones beside it.
    """
    for file in RESOLVER_FILES:
        lines = Path(file).read_text().splitlines() if Path(file).exists() else []
        servers = [line.split()[1] for line in lines if line.startswith("nameserver ")]
        if outside := [server for server in servers if not server.startswith(("127.", "::1"))]:
            return "".join(f"nameserver {server}\n" for server in outside)
    raise MachineError("/etc/resolv.conf has no name server that a machine can reach")
