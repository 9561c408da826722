"""Package sources for the machines, read from the controller's own apt configuration.

This repository names no mirror: a controller that can install packages can build machines, also
behind a proxy or with a local mirror.
"""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from testbed.process import MachineError, run

_COMPONENTS = {
    "debian": "main contrib non-free non-free-firmware",
    "ubuntu": "main restricted universe multiverse",
}


def os_release() -> dict[str, str]:
    """The controller's os-release(5)."""
    lines = Path("/etc/os-release").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {key: value.strip("\"'") for key, value in pairs}


def default_suite() -> str:
    """Debian 13 on a Debian controller; otherwise the controller's release.

    An Ubuntu controller's configuration names no Debian mirror, but Ubuntu is a target as well.
    """
    release = os_release()
    return "trixie" if release["ID"] == "debian" else release["VERSION_CODENAME"]


@dataclass(frozen=True)
class Archive:
    """Package sources of the controller."""

    main: str
    """Address of the distribution's archive."""
    security: str
    """Address of the archive of its security fixes."""
    distribution: str

    @classmethod
    @cache
    def of_controller(cls) -> Archive:
        """From apt's own view of its configuration, in any file format."""
        query = ["--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]
        listed = run(["apt-get", "indextargets", *query]).stdout
        by_suite = dict(reversed([line.split(None, 1) for line in listed.splitlines() if line]))
        release = os_release()
        suite = release["VERSION_CODENAME"]
        if suite not in by_suite:
            raise MachineError(f"apt on this controller has no source for {suite}: add one")
        main = by_suite[suite].rstrip("/")
        security = by_suite.get(f"{suite}-security", main).rstrip("/")
        return cls(main, security, release["ID"])

    @property
    def keyring(self) -> str:
        return f"/usr/share/keyrings/{self.distribution}-archive-keyring.gpg"

    def paragraph(self, address: str, *suites: str) -> str:
        """A source in the deb822 format of sources.list(5)."""
        lines = {
            "Types": "deb",
            "URIs": address,
            "Suites": " ".join(suites),
            "Components": _COMPONENTS[self.distribution],
            "Signed-By": self.keyring,
        }
        return "".join(f"{key}: {value}\n" for key, value in lines.items())

    def sources(self, suite: str) -> str:
        """All sources for a server of that suite.

        A mirror may lack updates and security fixes of a suite: those are left out, because apt
        would fail on the machine.
        """
        main = [suite, *(s for s in (f"{suite}-updates",) if _carries(self.main, s))]
        text = self.paragraph(self.main, *main)
        if _carries(self.security, f"{suite}-security"):
            text += "\n" + self.paragraph(self.security, f"{suite}-security")
        return text


def _carries(address: str, suite: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/dists/{suite}/InRelease", timeout=20):
            return True
    except OSError:
        return False


def backports_source() -> str:
    """The controller's own backports, as a deb822 source."""
    archive = Archive.of_controller()
    return archive.paragraph(archive.main, f"{os_release()['VERSION_CODENAME']}-backports")


def transport_options() -> list[str]:
    """The controller's download settings, as apt.conf(5) lines.

    Proxies, and leniency with a mirror whose Release file has expired; nothing else, because the
    machine must behave like a server, not like the controller.
    """
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
    dump = run(["apt-config", "dump", "--format", '%F "%v";%n']).stdout.splitlines()
    return [line for line in dump if line.startswith(wanted) and not line.endswith('"";')]
