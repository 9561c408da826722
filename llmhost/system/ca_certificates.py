"""The system's trusted certificate authorities on Debian and Ubuntu. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmhost.system.files import Absent, Entry, File, PathState, differences

DIRECTORY = "/usr/local/share/ca-certificates"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""All authorities in one file, written by update-ca-certificates(8); programs read it."""

UPDATE = "update-ca-certificates --fresh >/dev/null"


@dataclass(frozen=True)
class TrustState:
    """`paths` are states of the authority's file, `bundled` whether the bundle contains it."""

    paths: Mapping[str, PathState] = field(default_factory=dict)
    bundled: bool = False


def entry(name: str, certificate: str | None) -> Entry:
    """The file of the authority `name`; without a certificate (PEM) it must not exist."""
    path = f"{DIRECTORY}/{name}.crt"
    return Absent(path) if certificate is None else File(path, certificate)


def signature(certificate: str) -> str:
    """A unique line of a certificate (PEM): the last full one, part of its signature."""
    lines = [line for line in certificate.splitlines() if line and not line.startswith("-")]
    return lines[-2] if len(lines) > 1 else ""


def reasons(wanted: Entry, state: TrustState) -> list[str]:
    """Why the list is not as declared; empty if it is."""
    wrong = [*differences([wanted], state.paths).values()]
    if not wrong and isinstance(wanted, File) and not state.bundled:
        wrong = [f"{BUNDLE} does not contain {wanted.path}"]
    return wrong
