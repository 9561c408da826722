"""The system's list of trusted certificate authorities, as Debian and Ubuntu keep it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmhost.system.files import Absent, Entry, File, PathState, differences

DIRECTORY = "/usr/local/share/ca-certificates"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""What update-ca-certificates(8) makes of all authorities, and programs read."""

UPDATE = "update-ca-certificates --fresh >/dev/null"


@dataclass(frozen=True)
class TrustState:
    """`paths` are states of the authority's file, `bundled` whether the bundle holds it."""

    paths: Mapping[str, PathState] = field(default_factory=dict)
    bundled: bool = False


def entry(name: str, certificate: str | None) -> Entry:
    """Where the authority `name` stands; without a certificate (PEM) it must not be there."""
    path = f"{DIRECTORY}/{name}.crt"
    return Absent(path) if certificate is None else File(path, certificate)


def signature(certificate: str) -> str:
    """A line of a certificate (PEM) that no other has: the last whole one, of its signature."""
    lines = [line for line in certificate.splitlines() if line and not line.startswith("-")]
    return lines[-2] if len(lines) > 1 else ""


def reasons(wanted: Entry, state: TrustState) -> list[str]:
    """Why the list is not as declared; empty if it is."""
    wrong = [*differences([wanted], state.paths).values()]
    if not wrong and isinstance(wanted, File) and not state.bundled:
        wrong = [f"{BUNDLE} does not hold {wanted.path}"]
    return wrong
