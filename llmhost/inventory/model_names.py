"""Names of models in an inventory's source text. Pure."""

from collections.abc import Mapping
from typing import Any

import libcst as cst

from llmhost.gateway.python_source import EditError, fields_of, literal, parsed, taken_over
from llmhost.units import counted

_TRAINING = {"model", "data", "evaluate"}
"""Fields of a training job, which belongs to the weights of its model, not to a role."""


class _Names(cst.CSTVisitor):
    """Finds the names of all records of models, which have a name and a source, those of records
    that say where a gateway finds models, and the models of training jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, cst.BaseExpression]] = []
        self.behind: list[tuple[str, cst.BaseExpression]] = []
        self.trained: list[tuple[str, cst.BaseExpression]] = []
        self._assigned: dict[str, set[str]] = {}

    def visit_Assign(self, node: cst.Assign) -> None:
        """Fields that records can take over, as in `{"name": "brain", **base}`."""
        for each in node.targets:
            if isinstance(each.target, cst.Name):
                self._assigned[each.target.value] = {*fields_of(node.value)}

    def _take(self, record: cst.BaseExpression) -> None:
        fields = fields_of(record)
        more = {name for base in taken_over(record) for name in self._assigned.get(base, ())}
        if "source" in fields.keys() | more and "name" in fields:
            value = fields["name"].value
            self.found.append((str(literal(value)), value))
        elif "service" in fields.keys() | more and "name" in fields:
            value = fields["name"].value
            self.behind.append((str(literal(value)), value))
        elif fields.keys() >= _TRAINING:
            value = fields["model"].value
            self.trained.append((str(literal(value)), value))

    def visit_Dict(self, node: cst.Dict) -> None:
        self._take(node)

    def visit_Call(self, node: cst.Call) -> None:
        self._take(node)


class _Exchange(cst.CSTTransformer):
    def __init__(self, new: Mapping[cst.BaseExpression, str]) -> None:
        super().__init__()
        self._new = new

    def on_leave(self, original_node: cst.CSTNode, updated_node: cst.CSTNode) -> Any:
        if isinstance(original_node, cst.BaseExpression) and (name := self._new.get(original_node)):
            return cst.SimpleString(f'"{name}"')
        return super().on_leave(original_node, updated_node)


def exchanged(source: str, one: str, other: str) -> str:
    """The source with the names of two models exchanged, also where a gateway finds both, and in
    their training jobs. Raises EditError."""
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
    names.found += names.trained
    behind = [name for name, _ in names.behind]
    if behind.count(one) == behind.count(other):
        names.found += names.behind
    swapped = {one: other, other: one}
    new = {node: swapped[name] for name, node in names.found if name in swapped}
    return module.visit(_Exchange(new)).code
