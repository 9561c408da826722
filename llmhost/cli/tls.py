"""`llmhost tls`: the site's certificate authority."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from llmhost.cli.errors import stop
from llmhost.gateway.authority import open_authority
from llmhost.options.gateway import CA_CERTIFICATE, Gateway

app = typer.Typer(
    help="Print the certificate of the site's certificate authority.", no_args_is_help=True
)

# The default of the option gateway_ca_directory.
DEFAULT = Gateway.model_fields["ca_directory"].default


@app.callback()
def tls() -> None:
    """Makes this a group of commands, although it has only one."""


@app.command()
def ca(
    directory: Annotated[
        Path, typer.Argument(help="The inventory's gateway_ca_directory")
    ] = DEFAULT,
) -> None:
    """Print the CA certificate, which clients need. Creates the CA if it does not exist.

    The certificate goes to standard output, its path and fingerprint to standard error.
    """
    place = directory.expanduser()
    try:
        certificate = open_authority(place, create=True).certificate
    except OSError as error:
        stop(f"{place} cannot be used: {error.strerror}")
    except ValueError as error:
        stop(f"{place} cannot be used: {error}")
    found = x509.load_pem_x509_certificate(certificate)
    days = (found.not_valid_after_utc - datetime.now(UTC)).days
    typer.echo(f"{place / CA_CERTIFICATE}, valid for {days} more days", err=True)
    typer.echo(f"SHA-256 {found.fingerprint(hashes.SHA256()).hex(':')}", err=True)
    typer.echo(certificate.decode(), nl=False)
