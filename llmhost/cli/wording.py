"""Help texts and usage errors of all commands, as an operator reads them."""

from typing import Any

from typer.core import TyperArgument, TyperGroup

_NUMBERS = {"int": "a whole number", "float": "a number"}
_LIMITS = {
    "greater_than_equal": ("ge", "or more"),
    "less_than_equal": ("le", "or less"),
}


def readable(command: Any) -> Any:
    """The command with each paragraph of its help on one line, which the terminal wraps, with
    brackets as written, and with arguments in capitals, as the documentation writes them."""
    if command.help:
        paragraphs = command.help.split("\n\n")
        command.help = _literal("\n\n".join(" ".join(each.split()) for each in paragraphs))
    for parameter in command.params:
        parameter.help = _literal(getattr(parameter, "help", None))
        if isinstance(parameter, TyperArgument) and parameter.metavar is None:
            parameter.metavar = parameter.name.upper()
    if isinstance(command, TyperGroup):
        for each in command.commands.values():
            readable(each)
    return command


def _literal(text: str | None) -> str | None:
    """A help text whose brackets are not markup: Rich would hide `llmhost[plot]`, and fail at
    `REPOSITORY[/FILE]`."""
    if not text or "[" not in text:
        return text
    from rich.markup import escape  # slow to import; few texts need it

    return escape(text)


def mistake(error: BaseException) -> str | None:
    """What is wrong with the value of an option, without the validator's terms."""
    details = getattr(error.__cause__, "errors", None)
    if details is None:
        return None
    detail = details()[0]
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    number = _NUMBERS.get(kind.partition("_")[0])
    if number:
        return f"{given!r} is not {number}."
    if kind in _LIMITS:
        limit, words = _LIMITS[kind]
        return f"{given} is out of range; write {context[limit]:g} {words}."
    return str(context["error"]) if "error" in context else None
