"""Arguments and options that several commands have."""

from typing import Annotated

import typer

Inventory = Annotated[str, typer.Argument(help="Inventory file, such as inventory/site.py")]
HostName = Annotated[str, typer.Argument(metavar="HOST", help="One host of the inventory")]
Hosts = Annotated[
    list[str] | None,
    typer.Argument(metavar="HOST", help="Hosts, patterns or groups; all if there are none"),
]
Limit = Annotated[list[str] | None, typer.Option(help="Host, pattern or group; repeatable")]
