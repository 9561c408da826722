"""`llmhost key`: API keys of the gateway's clients. A key is shown once and stored nowhere."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from llmhost.cli.arguments import Inventory
from llmhost.cli.edit import edit_file
from llmhost.cli.errors import stop
from llmhost.gateway.keys import digest, new_key
from llmhost.options.names import CLIENT
from llmhost.system.whole_file import write_private_file

app = typer.Typer(help="Create, import, rotate, revoke and list API keys.", no_args_is_help=True)

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
        stop(
            f"'{client}' is not a name of a client: use up to 63 lower-case letters, digits, '.',"
            " '_' and '-', such as main-app"
        )
    key = new_key()
    record = f'{{"name": "{client}", "sha256": "{digest(key)}"}}'
    if file:
        from llmhost.gateway.client_records import added

        edit_file(file, lambda source: added(source, [{"name": client, "sha256": digest(key)}]))
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
    from llmhost.gateway.client_records import changed, field
    from llmhost.gateway.python_source import EditError

    key = new_key()
    until = (datetime.now(UTC) + timedelta(days=keep_days)).replace(microsecond=0).isoformat()

    def rotated(source: str) -> str:
        old = field(source, client, "sha256")
        if not isinstance(old, str):
            raise EditError(f"'{client}' has no sha256 to rotate; add one to its record")
        previous = {"previous_sha256": old, "previous_until": until}
        return changed(source, client, {"sha256": digest(key), **previous})

    edit_file(file, rotated)
    _show(key)
    _say(f"The old key works until {until}. {DEPLOY}")


@app.command()
def revoke(client: Client, file: Source) -> None:
    """Refuse all keys of a client. The access log still names the client when one is used."""
    from llmhost.gateway.client_records import changed

    edit_file(file, lambda source: changed(source, client, {"revoked": True}))
    _say(f"'{client}' is revoked in {file}. {DEPLOY}")


@app.command("import")
def import_clients(
    clients: Annotated[
        Path,
        typer.Argument(metavar="CSV", help="File with a column `name`; see llmhost docs gateway"),
    ],
    file: Source,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="New file for the keys; default: standard output"),
    ] = None,
) -> None:
    """Create a key for each client of a CSV file: for all of them, or for none.

    The keys are printed once, as CSV with the columns name and key; a file for them can be read by
    its owner only.
    """
    # They read the inventory's options, which takes longer than the other commands need.
    from llmhost.gateway.client_records import added
    from llmhost.inventory.client_csv import CsvMistakes, clients_of

    try:
        found = clients_of(clients.read_text(encoding="utf-8"))
    except CsvMistakes as error:
        stop(*(f"{clients}: {sentence}" for sentence in error.sentences))
    except OSError as error:
        stop(f"{clients}: {error.strerror}")
    except UnicodeDecodeError as error:
        stop(f"{clients}: byte {error.start + 1} is not UTF-8; save the file as UTF-8")
    keys = {each["name"]: new_key() for each in found}
    records = [
        {"name": each["name"], "sha256": digest(keys[each["name"]]), **each} for each in found
    ]
    text = "".join(f"{name},{key}\n" for name, key in {"name": "key", **keys}.items())
    written = _new_secret_file(output, text) if output else None
    try:
        edit_file(file, lambda source: added(source, records))
    except typer.Exit:
        if written:
            written.unlink()
        raise
    if written is None:
        typer.echo(text, nl=False)
    place = f" Their keys are in {written}, and nowhere else." if written else ""
    _say(f"Added {len(keys)} clients to {file}.{place} {DEPLOY}")


def _new_secret_file(file: Path, text: str) -> Path:
    try:
        write_private_file(file, text)
    except FileExistsError:
        stop(f"{file} exists already; name a new file")
    except OSError as error:
        stop(f"{file}: {error.strerror}")
    return file


@app.command("list")
def list_clients(
    inventory: Inventory,
    use: Annotated[
        bool, typer.Option("--use", help="Ask the gateways when each key was last used")
    ] = False,
    unused_for: Annotated[
        str, typer.Option(metavar="AGE", help="Name keys without a request for as long, as in 30d")
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs key-list.schema.json")
    ] = False,
) -> None:
    """Show which clients may call which host, and until when.

    Uses are those in the gateways' logs, which are kept for gateway_log_days. Exit status: 0, 2 if
    a key expires within 14 days, has expired or is unused, 1 if a host could not be reached.
    """
    # The imports take half a second, and no other command here reads an inventory.
    from llmhost.cli.gevent_start import use_gevent

    use_gevent()  # before pyinfra is imported
    from llmhost.cli.client_table import print_clients
    from llmhost.status.logs import age_of

    try:
        age = age_of(unused_for) if unused_for else None
    except ValueError:
        stop(f"--unused-for {unused_for} is not an age; write one such as 30d")
    raise typer.Exit(print_clients(inventory, ask=use, age=age, as_json=as_json))


def _show(key: str) -> None:
    _say("This key is shown once and stored nowhere; give it to the client:")
    typer.echo(key)


def _say(sentence: str) -> None:
    """Print to standard error, so that standard output holds only the key."""
    typer.echo(sentence, err=True)
