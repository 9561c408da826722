"""OpenSSH without prompts: keys, known hosts and an ssh_config for each LAN."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from testbed.process import run


@dataclass(frozen=True)
class Endpoint:
    """Address of a machine's sshd."""

    name: str
    addresses: tuple[str, ...]
    """The first one is used for connections."""
    host_key: str
    """``ssh-ed25519 AAAA…``: created before the machine, so that the first connection is verified
    too."""

    def known_hosts(self) -> str:
        return f"{','.join((self.name, *self.addresses))} {self.host_key}\n"


@dataclass(frozen=True)
class SshAccess:
    """The OpenSSH files of one LAN."""

    directory: Path
    """Directory of the keys and the configuration; readable by its owner only."""
    sockets: Path
    """For ControlPath: short, because a socket's path has at most 107 characters (unix(7))."""

    @property
    def config(self) -> Path:
        return self.directory / "ssh_config"

    @property
    def identity(self) -> Path:
        return self.directory / "id_ed25519"

    def prepare(self) -> None:
        """Create the directories and the key for all machines of the LAN."""
        for directory in (self.directory, self.sockets):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.identity.exists():
            make_key(self.identity, "llmhost-tests")

    def write_config(self, endpoints: Iterable[Endpoint]) -> None:
        """Write the machines to the ssh_config of ssh(1), scp, rsync and pyinfra."""
        endpoints = list(endpoints)
        known_hosts = self.directory / "known_hosts"
        known_hosts.write_text("".join(endpoint.known_hosts() for endpoint in endpoints))
        aliases = (f"Host {e.name}\n    HostName {e.addresses[0]}\n" for e in endpoints)
        common = "".join(f"    {line}\n" for line in self._options(known_hosts))
        self.config.write_text("\n".join([*aliases, f"Host *\n{common}"]))

    def _options(self, known_hosts: Path) -> list[str]:
        return [
            "Port 22",
            "User root",
            f"IdentityFile {_quoted(self.identity)}",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {_quoted(known_hosts)}",
            "GlobalKnownHostsFile /dev/null",
            "StrictHostKeyChecking yes",
            "BatchMode yes",
            "LogLevel ERROR",
            "ConnectTimeout 5",
            # A machine without power does not close its connections.
            "ServerAliveInterval 5",
            "ServerAliveCountMax 3",
            "ControlMaster auto",
            f"ControlPath {self.sockets}/%n.%r",
            "ControlPersist 60",
        ]

    def run(
        self,
        name: str,
        command: str,
        *,
        user: str | None = None,
        input: str | None = None,
        timeout: float | None = None,
        check: bool = True,
        fresh: bool = False,
    ) -> CompletedProcess[str]:
        """Run a shell command on the machine ``name``, by default as root. ``fresh`` uses a new
        connection.
        """
        options = ["-l", user] if user else []
        options += ["-o", "ControlPath=none"] if fresh else []
        argv = ["ssh", "-F", str(self.config), *options, name, command]
        return run(argv, input=input, timeout=timeout, check=check)

    def hang_up(self, name: str = "*") -> None:
        """End connections that ControlPersist keeps, all or those to one machine."""
        for socket in self.sockets.glob(f"{name}.*"):
            # The socket's path identifies the connection; the host name is not used.
            argv = ["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "exit", "none"]
            run(argv, check=False)
            socket.unlink(missing_ok=True)


def _quoted(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)


def make_key(path: Path, comment: str) -> str:
    """Write an Ed25519 key pair without passphrase; returns the public key, ``type base64``."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
    return public_key(path)


def public_key(path: Path) -> str:
    kind, key, *_ = shlex.split(path.with_suffix(".pub").read_text())
    return f"{kind} {key}"
