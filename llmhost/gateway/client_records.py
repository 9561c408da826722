"""`api_clients` in an inventory's source text, edited in place.

An inventory is Python with comments: LibCST keeps everything that does not change.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import libcst as cst

from llmhost.gateway.python_source import (
    EditError,
    Record,
    Value,
    fields_of,
    literal,
    parsed,
    replaced,
)

KEY = "api_clients"

Clients = cst.List | cst.Tuple

_ROTATE = "llmhost key rotate"


def added(source: str, records: Sequence[Mapping[str, Any]]) -> str:
    """The source with records for new clients at the end of its list of clients."""
    module = parsed(source)
    lists = _lists(module)
    known = {_name(each.value) for clients in lists for each in clients.elements}
    taken = [str(each["name"]) for each in records if each["name"] in known]
    if taken:
        names = ", ".join(f"'{name}'" for name in taken)
        client = taken[0] if len(taken) == 1 else "CLIENT"
        raise EditError(
            f"{names} already {'has a record' if len(taken) == 1 else 'have records'};"
            f" to replace a key: {_ROTATE} {client} FILE"
        )
    if len(lists) != 1:
        many = f"{len(lists)} lists of {KEY}" if lists else f"no list {KEY}"
        raise EditError(f"this file has {many}; add the client by hand: llmhost key new CLIENT")
    [old] = lists
    new = old
    for record in records:
        new = _with_client(new, cst.Element(cst.parse_expression(written(record))))
    return replaced(module, old, new)


def written(record: Mapping[str, Any]) -> str:
    """A record as a line of an inventory; its values are those of JSON, without null."""
    return json.dumps(record, ensure_ascii=False)


def changed(source: str, client: str, values: Mapping[str, Value]) -> str:
    """The source with these fields of a client's record set or added."""
    module = parsed(source)
    record = _record(module, client)
    edited = record
    for name, value in values.items():
        edited = _with_field(edited, name, value)
    return replaced(module, record, edited)


def field(source: str, client: str, name: str) -> Value | None:
    """A field of a client's record, None if it is not there."""
    found = fields_of(_record(parsed(source), client)).get(name)
    if found is None:
        return None
    value = literal(found.value)
    if value is None:
        raise EditError(f"{name} of '{client}' is computed; edit the file by hand")
    return value


class _Lists(cst.CSTVisitor):
    """Finds every list that is the value of the key, in any notation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Clients] = []

    def _take(self, key: object, value: cst.BaseExpression | None) -> None:
        if key == KEY and isinstance(value, cst.List | cst.Tuple):
            self.found.append(value)

    def visit_DictElement(self, node: cst.DictElement) -> None:
        self._take(literal(node.key), node.value)

    def visit_Arg(self, node: cst.Arg) -> None:
        self._take(node.keyword and node.keyword.value, node.value)

    def visit_Assign(self, node: cst.Assign) -> None:
        for each in node.targets:
            self._take(getattr(each.target, "value", None), node.value)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        self._take(getattr(node.target, "value", None), node.value)


def _lists(module: cst.Module) -> list[Clients]:
    lists = _Lists()
    module.visit(lists)
    return lists.found


def _record(module: cst.Module, client: str) -> Record:
    values = [each.value for clients in _lists(module) for each in clients.elements]
    found = [value for value in values if _name(value) == client]
    if not found:
        names = ", ".join(sorted({str(name) for each in values if (name := _name(each))}))
        raise EditError(f"this file has no record of '{client}'; it has: {names or 'none'}")
    if len(found) != 1:
        raise EditError(f"this file has {len(found)} records of '{client}'; leave one")
    assert isinstance(found[0], cst.Dict | cst.Call)
    return found[0]


def _name(record: cst.BaseExpression) -> Value | None:
    name = fields_of(record).get("name")
    return literal(name.value) if name else None


def _with_field(record: Record, name: str, value: Value) -> Record:
    written = cst.parse_expression(f'"{value}"' if isinstance(value, str) else repr(value))
    if known := fields_of(record).get(name):
        replaced = record.with_deep_changes(known, value=written)
        assert isinstance(replaced, cst.Dict | cst.Call)
        return replaced
    if isinstance(record, cst.Call):
        return _with_argument(record, name, written)
    pair = cst.DictElement(cst.SimpleString(f'"{name}"'), written)
    start = record.lbrace.whitespace_after
    items, end = _extended(record.elements, pair, start, record.rbrace)
    return record.with_changes(elements=items, rbrace=end)


def _with_argument(call: cst.Call, name: str, value: cst.BaseExpression) -> cst.Call:
    """A call has the space before its closing bracket in its last argument."""
    last = call.args[-1]
    space = (
        last.comma.whitespace_after
        if isinstance(last.comma, cst.Comma)
        else last.whitespace_after_arg
    )
    none = cst.SimpleWhitespace("")
    new = cst.Arg(value, keyword=cst.Name(name), equal=cst.AssignEqual(none, none))
    items, end = _extended(
        [*call.args[:-1], last.with_changes(whitespace_after_arg=none)],
        new,
        call.whitespace_before_args,
        cst.RightParen(space),
    )
    if isinstance(items[-1].comma, cst.Comma):
        items[-1] = items[-1].with_deep_changes(
            items[-1].comma, whitespace_after=end.whitespace_before
        )
    return call.with_changes(args=items)


def _with_client(clients: Clients, record: cst.Element) -> Clients:
    if isinstance(clients, cst.List):
        start = clients.lbracket.whitespace_after
        items, end = _extended(clients.elements, record, start, clients.rbracket)
        return clients.with_changes(elements=items, rbracket=end)
    if not clients.lpar:
        raise EditError(f"{KEY} is a tuple without brackets: write it as a list")
    start = clients.lpar[0].whitespace_after
    items, end = _extended(clients.elements, record, start, clients.rpar[0])
    return clients.with_changes(elements=items, rpar=[end, *clients.rpar[1:]])


def _extended(
    items: Sequence[Any], new: Any, start: cst.BaseParenthesizableWhitespace, closing: Any
) -> tuple[list[Any], Any]:
    """Items with a new one after the last, and the closing bracket with the space before it.

    The new one gets its own line if the last one ends its line, whose comment stays there.
    """
    if not items:
        return [new], closing
    *others, last = items
    end = closing.whitespace_before
    if not isinstance(end, cst.ParenthesizedWhitespace):
        comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        return [*others, last.with_changes(comma=comma), new], closing
    before_last = others[-1].comma.whitespace_after if others else start
    indent = getattr(before_last, "last_line", cst.SimpleWhitespace("    "))
    comma = cst.Comma(whitespace_after=end.with_changes(last_line=indent))
    end = end.with_changes(first_line=cst.TrailingWhitespace(), empty_lines=[])
    extended = [*others, last.with_changes(comma=comma), new.with_changes(comma=cst.Comma())]
    return extended, closing.with_changes(whitespace_before=end)
