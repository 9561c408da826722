"""`llmhost bundle`: create a signed file with all that a deploy fetches, and deploy from it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pyinfra.api import Inventory
from rich.console import Console
from rich.progress import Progress

from llmhost.bundle.file import Bundle, verified_bundle
from llmhost.bundle.key import DIRECTORY, PUBLIC, fingerprint, signing_key, verifying_key
from llmhost.bundle.manifest import BundleError
from llmhost.cli.arguments import Limit
from llmhost.cli.bundle_apply import deliver_all, deliveries, deploy
from llmhost.cli.bundle_create import builder_of, create_bundle
from llmhost.cli.bundle_targets import images_of
from llmhost.cli.errors import stop
from llmhost.cli.inventory_file import load_inventory
from llmhost.cli.remote import LOCAL, RemoteError, remote
from llmhost.cli.session import checked_hosts
from llmhost.inventory.site import SiteHost

app = typer.Typer(
    help="Deploy to hosts without a network, from one signed file.", no_args_is_help=True
)

InventoryFile = Annotated[
    str, typer.Argument(metavar="INVENTORY", help="Inventory file, such as inventory/site.py")
]


@app.command()
def create(
    inventory: InventoryFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write")],
    builder: Annotated[
        str,
        typer.Option(
            help="Machine with a network and the hosts' OS release: @local, a host of the"
            " inventory, or an SSH host name"
        ),
    ] = LOCAL,
    ssh_config: Annotated[
        Path | None, typer.Option(help="SSH client configuration for the builder")
    ] = None,
    package: Annotated[
        list[str] | None, typer.Option(help="Additional package, such as a GPU driver; repeatable")
    ] = None,
    limit: Limit = None,
    key: Annotated[
        Path, typer.Option(help="Directory of the signing key; created if it does not exist")
    ] = DIRECTORY,
) -> None:
    """Collect everything that a deploy of the inventory would fetch in one signed file.

    Hosts other than the builder are not contacted. The builder builds the images and downloads
    the packages; it needs Docker with buildx, curl and gnupg, and keeps both in its caches. A rerun
    after an interruption reuses the finished parts in FILE.parts.
    """
    with _sentences():
        loaded = load_inventory(inventory)
        targets = _targets(loaded, limit)
        signing = signing_key(key.expanduser())
        data = _login(loaded, builder)
        if ssh_config:
            data |= {"ssh_config_file": str(ssh_config)}
        with remote(builder, data) as reached:
            made = builder_of(reached, data, bakes=any(map(images_of, targets)))
            if any(target.settings.gpu_requests for target in targets) and not package:
                typer.echo(_NO_DRIVER, err=True)
            create_bundle(targets, made, package or [], output, signing)
    public = key.expanduser() / PUBLIC
    typer.echo(f"{output} is signed with the key {fingerprint(signing.public_key())}, {public}")


_NO_DRIVER = (
    "note: the bundle contains no GPU driver, because the hosts' GPUs are unknown here;"
    " run llmhost plan at the servers' site, and add the packages that it names with --package"
    " (llmhost docs air-gap)"
)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File from llmhost bundle create")],
    inventory: InventoryFile,
    limit: Limit = None,
    key: Annotated[Path, typer.Option(help="Public key of the bundle's signer")] = DIRECTORY
    / PUBLIC,
) -> None:
    """Deploy the inventory from a bundle only; nothing is downloaded.

    The whole bundle and all hosts are checked before the first change. A rerun after an
    interruption reuses the parts that are on a host; a successful deploy removes them.
    """
    with _sentences():
        public = verifying_key(key.expanduser())
        targets = _targets(load_inventory(inventory), limit)
        with _checked(file, public) as bundle, deliveries(bundle, targets) as found:
            problems = deliver_all(bundle, found)
            for sentence in problems.values():
                typer.echo(f"error: {sentence}", err=True)
            delivered = [each for each in found if each.target.name not in problems]
            if delivered:
                deploy(inventory, delivered)
                names = ", ".join(each.target.name for each in delivered)
                typer.echo(f"{names}: deployed from {file}")
            if problems:
                stop(f"not deployed, for the reasons above: {', '.join(problems)}")


def _login(inventory: Inventory, builder: str) -> dict[str, Any]:
    """How to log in to the builder, if it is a host of the inventory."""
    host = inventory.get_host(builder, None)
    data = host.data.dict() if host else {}
    return {key: value for key, value in data.items() if key.startswith(("ssh_", "_sudo"))}


def _targets(inventory: Inventory, limit: list[str] | None) -> list[SiteHost]:
    return sorted(checked_hosts(inventory, limit or []), key=lambda host: host.name)


@contextmanager
def _checked(file: Path, key: Ed25519PublicKey) -> Iterator[Bundle]:
    """A bundle whose signature and contents are verified; a terminal shows the progress."""
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
    """End the command with an error message for each expected failure."""
    try:
        yield
    except (BundleError, RemoteError) as error:
        stop(*str(error).splitlines())
    except OSError as error:
        stop(f"{error.filename or 'a file'}: {error.strerror or error}")
