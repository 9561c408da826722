"""`llmhost key`: API keys of the gateway's clients. A key is shown once and stored nowhere."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from llmhost.cli.errors import stop
from llmhost.gateway.keys import digest, new_key
from llmhost.options.names import CLIENT

app = typer.Typer(help="Create, rotate, revoke and list API keys.", no_args_is_help=True)

Client = Annotated[str, typer.Argument(metavar="NAME", help="Name of the client")]
Source = Annotated[
    Path, typer.Argument(metavar="FILE", help="Python file that holds the list api_clients")
]

DEPLOY = "Deploy to make it so: pyinfra INVENTORY deploy.py"


@app.command()
def new(
    client: Client,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Python file to add the client to")
    ] = None,
) -> None:
    """Make a key for a new client: print it once, and the line for the inventory."""
    if not re.fullmatch(CLIENT, client):
        stop(f"'{client}' cannot be a name: use lower-case letters, digits, '.', '_' and '-'")
    key = new_key()
    record = f'{{"name": "{client}", "sha256": "{digest(key)}"}}'
    if file:
        from llmhost.gateway.client_records import added

        _edit(file, lambda source: added(source, client, digest(key)))
    _show(key)
    if file:
        _say(f"{file} has its digest now. {DEPLOY}")
    else:
        _say("Add this line to api_clients in the inventory, then deploy:")
        typer.echo(f"{record},")


@app.command()
def rotate(
    client: Client,
    file: Source,
    keep_days: Annotated[
        float, typer.Option(min=0, help="How long the old key goes on working")
    ] = 7.0,
) -> None:
    """Give a client a new key; the old one goes on working for a while."""
    from llmhost.gateway.client_records import EditError, changed, field

    key = new_key()
    until = (datetime.now(UTC) + timedelta(days=keep_days)).replace(microsecond=0).isoformat()

    def rotated(source: str) -> str:
        old = field(source, client, "sha256")
        if not isinstance(old, str):
            raise EditError(f"'{client}' has no sha256 to rotate: add one by hand")
        previous = {"previous_sha256": old, "previous_until": until}
        return changed(source, client, {"sha256": digest(key), **previous})

    _edit(file, rotated)
    _show(key)
    _say(f"The old key works until {until}. {DEPLOY}")


@app.command()
def revoke(client: Client, file: Source) -> None:
    """Refuse all keys of a client; the log goes on naming it when one is tried."""
    from llmhost.gateway.client_records import changed

    _edit(file, lambda source: changed(source, client, {"revoked": True}))
    _say(f"'{client}' is revoked in {file}. {DEPLOY}")


@app.command("list")
def list_clients(
    inventory: Annotated[str, typer.Argument(help="Inventory file, such as inventory/llm.py")],
) -> None:
    """Show who may call which host, and until when."""
    # What reads an inventory takes half a second to import, and no other command here needs it.
    from llmhost.cli.client_table import print_clients

    print_clients(inventory)


def _edit(file: Path, edit: Callable[[str], str]) -> None:
    """Replace a file by its edited text in one rename, keeping its permissions."""
    # Imported here: LibCST is slow to import, and only edits need it.
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
        stop(f"{file}: {error.strerror}")


def _show(key: str) -> None:
    _say("The key is shown this once and stored nowhere; hand it to the client:")
    typer.echo(key)


def _say(sentence: str) -> None:
    """To the terminal only, so that the key can be piped to where it is needed."""
    typer.echo(sentence, err=True)
