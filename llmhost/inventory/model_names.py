"""Names of models in an inventory's source text. Pure."""

from typing import Any

import libcst as cst

from llmhost.gateway.python_source import EditError, fields_of, literal, parsed
from llmhost.units import counted


class _Names(cst.CSTVisitor):
    """Finds the names of all records of models: they have a name and a source."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, cst.BaseExpression]] = []

    def _take(self, record: cst.BaseExpression) -> None:
        fields = fields_of(record)
        if "source" in fields and "name" in fields:
            value = fields["name"].value
            self.found.append((str(literal(value)), value))

    def visit_Dict(self, node: cst.Dict) -> None:
        self._take(node)

    def visit_Call(self, node: cst.Call) -> None:
        self._take(node)


class _Exchange(cst.CSTTransformer):
    def __init__(self, new: dict[cst.CSTNode, str]) -> None:
        super().__init__()
        self._new = new

    def on_leave(self, original_node: cst.CSTNode, updated_node: cst.CSTNode) -> Any:
        if name := self._new.get(original_node):
            return cst.SimpleString(f'"{name}"')
        return super().on_leave(original_node, updated_node)


def exchanged(source: str, one: str, other: str) -> str:
    """The source with the names of two models exchanged. Raises EditError."""
    if one == other:
        raise EditError(f"both models are '{one}'; write the names of two models")
    module = parsed(source)
    names = _Names()
    module.visit(names)
    places = {name: [node for found, node in names.found if found == name] for name in (one, other)}
    for name, nodes in places.items():
        if not nodes:
            known = ", ".join(dict.fromkeys(found for found, _ in names.found)) or "none"
            raise EditError(
                f"this file has no model '{name}'; it has: {known}; edit the file by hand if the"
                " model is elsewhere"
            )
    if len(places[one]) != len(places[other]):
        counts = [counted(len(places[name]), "record") for name in (one, other)]
        raise EditError(
            f"'{one}' has {counts[0]} and '{other}' has {counts[1]}, so that a host would lose one"
            " of these names: edit the file by hand"
        )
    new: dict[cst.CSTNode, str] = dict.fromkeys(places[one], other)
    new |= dict.fromkeys(places[other], one)
    return module.visit(_Exchange(new)).code
