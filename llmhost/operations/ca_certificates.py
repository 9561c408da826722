"""Certificate authorities that all programs of a host trust."""

from pathlib import Path

from pyinfra import host
from pyinfra.api import StringCommand

from llmhost.facts.ca_certificates import TrustedCertificate
from llmhost.gateway.authority import open_authority
from llmhost.operations.changes import Commands, declared, explain
from llmhost.operations.files import apply_command
from llmhost.system.ca_certificates import UPDATE, entry, reasons, signature


@declared
def trusted(authority: Path | None, *, label: str) -> Commands:
    """Trust the site's authority, kept in this directory of the controller, and under this label
    no other; without one, none."""
    certificate = None
    if authority:
        # A dry run leaves nothing behind on the controller.
        opened = open_authority(authority, create=host.state.is_executing)
        certificate = opened.certificate.decode()
    wanted = entry(label, certificate)
    line = signature(certificate or "")
    state = host.get_fact(TrustedCertificate, path=wanted.path, line=line)
    if wrong := reasons(wanted, state):
        explain(wrong)
        yield apply_command([wanted])
        yield StringCommand(UPDATE)
