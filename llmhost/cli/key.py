"""`llmhost key`: API keys of the gateway's clients. A key is shown once and stored nowhere."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from llmhost.cli.errors import misused, stop
from llmhost.gateway.keys import digest, new_key
from llmhost.options.names import CLIENT

app = typer.Typer(help="Create, rotate, revoke and list API keys.", no_args_is_help=True)

Client = Annotated[str, typer.Argument(metavar="NAME", help="Name of the client")]
Source = Annotated[
    Path, typer.Argument(metavar="FILE", help="Python file with the list api_clients")
]

DEPLOY = "To apply this, deploy: pyinfra INVENTORY deploy.py"


@app.command()
def new(
    client: Client,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Python file to add the client to")
    ] = None,
) -> None:
    """Create a key for a new client: print it once, with the record for the inventory."""
    if not re.fullmatch(CLIENT, client):
        misused(
            f"'{client}' is not a name of a client: use up to 63 lower-case letters, digits, '.',"
            " '_' and '-', such as main-app"
        )
    key = new_key()
    record = f'{{"name": "{client}", "sha256": "{digest(key)}"}}'
    if file:
        from llmhost.gateway.client_records import added

        _edit(file, lambda source: added(source, client, digest(key)))
    _show(key)
    if file:
        _say(f"Added the client to {file}. {DEPLOY}")
    else:
        _say("Add this line to api_clients in the inventory, then deploy:")
        typer.echo(f"{record},")


@app.command()
def rotate(
    client: Client,
    file: Source,
    keep_days: Annotated[
        float, typer.Option(min=0, max=3650, help="Days that the old key stays valid")
    ] = 7.0,
) -> None:
    """Create a new key for a client; the old one stays valid for a while."""
    from llmhost.gateway.client_records import EditError, changed, field

    key = new_key()
    until = (datetime.now(UTC) + timedelta(days=keep_days)).replace(microsecond=0).isoformat()

    def rotated(source: str) -> str:
        old = field(source, client, "sha256")
        if not isinstance(old, str):
            raise EditError(f"'{client}' has no sha256 to rotate; add one to its record")
        previous = {"previous_sha256": old, "previous_until": until}
        return changed(source, client, {"sha256": digest(key), **previous})

    _edit(file, rotated)
    _show(key)
    _say(f"The old key works until {until}. {DEPLOY}")


@app.command()
def revoke(client: Client, file: Source) -> None:
    """Refuse all keys of a client. The access log still names the client when one is used."""
    from llmhost.gateway.client_records import changed

    _edit(file, lambda source: changed(source, client, {"revoked": True}))
    _say(f"'{client}' is revoked in {file}. {DEPLOY}")


@app.command("list")
def list_clients(
    inventory: Annotated[str, typer.Argument(help="Inventory file, such as inventory/site.py")],
) -> None:
    """Show which clients may call which host, and until when."""
    # The imports take half a second, and no other command here reads an inventory.
    from llmhost.cli.gevent_start import use_gevent

    use_gevent()  # before pyinfra is imported
    from llmhost.cli.client_table import print_clients

    print_clients(inventory)


def _edit(file: Path, edit: Callable[[str], str]) -> None:
    """Replace a file with its edited text in one rename, keeping its permissions."""
    # LibCST is slow to import, and only edits need it.
    from llmhost.gateway.client_records import EditError

    file = file.resolve()
    try:
        text = edit(file.read_bytes().decode())
        draft = file.with_name(f".{file.name}.new")
        draft.write_bytes(text.encode())
        draft.chmod(file.stat().st_mode & 0o7777)
        draft.replace(file)
    except EditError as error:
        stop(f"{file}: {error}")
    except OSError as error:
        stop(f"{file}: {error.strerror}; give the inventory file, such as inventory/site.py")
    except UnicodeDecodeError:
        stop(f"{file} is not a text file; give the inventory file, such as inventory/site.py")


def _show(key: str) -> None:
    _say("This key is shown once and stored nowhere; give it to the client:")
    typer.echo(key)


def _say(sentence: str) -> None:
    """Print to standard error, so that standard output holds only the key."""
    typer.echo(sentence, err=True)
