"""All commands under one name."""

import typer

from llmhost.cli import (
    bundle,
    drain,
    history,
    key,
    latency,
    model,
    plan,
    rollback,
    tls,
    verify,
    vram,
)

app = typer.Typer(
    name="llmhost",
    help="Plan, verify and look after LLM servers that `pyinfra INVENTORY deploy.py` provisions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("plan")(plan.plan)
app.command("verify")(verify.verify)
app.command("history")(history.show_history)
app.command("unlock")(history.unlock)
app.command("rollback")(rollback.return_to)
app.command("prune")(rollback.prune)
app.command("vram")(vram.vram)
app.command("latency")(latency.latency)
app.command("drain")(drain.drain)
app.add_typer(bundle.app, name="bundle")
app.add_typer(key.app, name="key")
app.add_typer(model.app, name="model")
app.add_typer(tls.app, name="tls")
