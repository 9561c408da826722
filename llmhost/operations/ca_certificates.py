"""Certificate authorities that all programs of a host trust."""

from pathlib import Path

from pyinfra import host
from pyinfra.api import StringCommand

from llmhost.facts.ca_certificates import TrustedCertificate
from llmhost.gateway.authority import has_authority, open_authority
from llmhost.operations.changes import explain
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import Question, ask
from llmhost.operations.files import apply_command
from llmhost.system.ca_certificates import UPDATE, entry, reasons, signature


def _question(certificate: str | None, label: str) -> Question:
    line = signature(certificate or "")
    return ask(TrustedCertificate, path=entry(label, certificate).path, line=line)


def _prefetch(authority: Path | None, *, label: str) -> list[Question]:
    if authority and not has_authority(authority):
        return []  # the authority is created during the deploy
    return [_question(_certificate(authority, create=False), label)]


@declared(prefetch=_prefetch)
def trusted(authority: Path | None, *, label: str) -> Commands:
    """Trust the site's authority, from this directory on the controller, as the only one with this
    label; without a directory, trust none."""
    # A dry run creates no authority on the controller.
    certificate = _certificate(authority, create=host.state.is_executing)
    wanted = entry(label, certificate)
    state = get_fact(TrustedCertificate, **_question(certificate, label).arguments)
    if wrong := reasons(wanted, state):
        explain(wrong)
        yield apply_command([wanted])
        yield StringCommand(UPDATE)


def _certificate(authority: Path | None, *, create: bool) -> str | None:
    return open_authority(authority, create=create).certificate.decode() if authority else None
