"""`llmhost bundle`: everything for hosts without network in one file, and a deploy from it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from rich.console import Console
from rich.progress import Progress

from llmhost.bundle.file import Bundle, verified_bundle
from llmhost.bundle.key import DIRECTORY, PUBLIC, fingerprint, signing_key, verifying_key
from llmhost.bundle.manifest import BundleError
from llmhost.cli.bundle_apply import deliver, deliveries, deploy
from llmhost.cli.bundle_create import builder_of, create_bundle
from llmhost.cli.bundle_targets import images_of
from llmhost.cli.errors import stop
from llmhost.cli.remote import LOCAL, RemoteError, remote
from llmhost.cli.session import site_hosts
from llmhost.inventory.site import SiteHost

app = typer.Typer(
    help="Deploy to hosts without a network, from one signed file.", no_args_is_help=True
)

InventoryFile = Annotated[str, typer.Argument(metavar="INVENTORY", help="Such as inventory/llm.py")]
Limit = Annotated[list[str] | None, typer.Option(help="Host, pattern or group; repeat")]


@app.command()
def create(
    inventory: InventoryFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write")],
    builder: Annotated[
        str,
        typer.Option(help="Connected machine of the hosts' release: @local, or a name for ssh"),
    ] = LOCAL,
    ssh_config: Annotated[
        Path | None, typer.Option(help="Where ssh finds the builder; none: ~/.ssh/config")
    ] = None,
    package: Annotated[
        list[str] | None, typer.Option(help="Further package, such as a GPU's driver; repeat")
    ] = None,
    limit: Limit = None,
    key: Annotated[
        Path, typer.Option(help="Directory of the key that signs; made if there is none")
    ] = DIRECTORY,
) -> None:
    """Gather all that a deploy of the inventory would fetch, in one signed file.

    The hosts themselves are not asked. Images are built and packages downloaded on the builder,
    which needs Docker with buildx, curl and gnupg, and is left with them in its caches. What an
    interrupted run has finished, in FILE.parts, is used again.
    """
    with _sentences():
        targets = _targets(inventory, limit)
        signing = signing_key(key.expanduser())
        data = {"ssh_config_file": str(ssh_config)} if ssh_config else {}
        with remote(builder, data) as reached:
            made = builder_of(reached, data, bakes=any(map(images_of, targets)))
            if any(target.settings.gpu_requests for target in targets) and not package:
                typer.echo(_NO_DRIVER, err=True)
            create_bundle(targets, made, package or [], output, signing)
    public = key.expanduser() / PUBLIC
    typer.echo(f"{output} is signed by the key {fingerprint(signing.public_key())}, {public}")


_NO_DRIVER = (
    "note: a driver depends on the GPUs, which are not looked at, so no driver is in the bundle;"
    " llmhost plan names its packages where the server is, --package takes them (docs/air-gap.md)"
)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What llmhost bundle create wrote")],
    inventory: InventoryFile,
    limit: Limit = None,
    key: Annotated[Path, typer.Option(help="Public key of whoever made the bundle")] = DIRECTORY
    / PUBLIC,
) -> None:
    """Deploy the inventory from a bundle, without any other source.

    All of the bundle and all hosts are checked before the first change. What an interrupted run
    has brought to a host is used again; a successful one leaves nothing of it there.
    """
    with _sentences():
        public = verifying_key(key.expanduser())
        targets = _targets(inventory, limit)
        with _checked(file, public) as bundle, deliveries(bundle, targets) as found:
            for each in found:
                deliver(bundle, each)
            deploy(inventory, found)
    names = ", ".join(target.name for target in targets)
    typer.echo(f"{names}: deployed from {file}")


def _targets(inventory: str, limit: list[str] | None) -> list[SiteHost]:
    return sorted(site_hosts(inventory, limit or []), key=lambda host: host.name)


@contextmanager
def _checked(file: Path, key: Ed25519PublicKey) -> Iterator[Bundle]:
    """A bundle that is what its maker signed; reading it whole is told on a terminal."""
    with ExitStack() as stack:
        console = Console(stderr=True)
        hidden = not console.is_terminal
        with Progress(console=console, transient=True, disable=hidden) as progress:
            total = file.stat().st_size if file.is_file() else None
            task = progress.add_task(f"checking {file.name}", total=total)
            opened = verified_bundle(file, key, lambda count: progress.advance(task, count))
            bundle = stack.enter_context(opened)
        yield bundle


@contextmanager
def _sentences() -> Iterator[None]:
    """What can go wrong becomes the command's last words."""
    try:
        yield
    except (BundleError, RemoteError) as error:
        stop(*str(error).splitlines())
    except OSError as error:
        stop(f"{error.filename or 'a file'}: {error.strerror or error}")
