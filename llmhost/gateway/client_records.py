"""`api_clients` in an inventory's source text, edited in place.

An inventory is Python with comments: LibCST keeps everything that does not change.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

import libcst as cst

KEY = "api_clients"

Value = str | bool
Clients = cst.List | cst.Tuple
Record = cst.Dict | cst.Call
Field = cst.DictElement | cst.Arg


_ROTATE = "llmhost key rotate"


class EditError(ValueError):
    """The text cannot be edited automatically; the sentence says what to do by hand."""


def added(source: str, records: Sequence[Mapping[str, Any]]) -> str:
    """The source with records for new clients at the end of its list of clients."""
    module = _parsed(source)
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
    return _replaced(module, old, new)


def written(record: Mapping[str, Any]) -> str:
    """A record as a line of an inventory; its values are those of JSON, without null."""
    return json.dumps(record, ensure_ascii=False)


def changed(source: str, client: str, values: Mapping[str, Value]) -> str:
    """The source with these fields of a client's record set or added."""
    module = _parsed(source)
    record = _record(module, client)
    edited = record
    for name, value in values.items():
        edited = _with_field(edited, name, value)
    return _replaced(module, record, edited)


def field(source: str, client: str, name: str) -> Value | None:
    """A field of a client's record, None if it is not there."""
    found = _fields(_record(_parsed(source), client)).get(name)
    if found is None:
        return None
    value = _literal(found.value)
    if value is None:
        raise EditError(f"{name} of '{client}' is computed; edit the file by hand")
    return value


def _parsed(source: str) -> cst.Module:
    try:
        ast.parse(source)  # its messages are familiar
        return cst.parse_module(source)
    except SyntaxError as error:
        raise EditError(f"line {error.lineno} is not Python: {error.msg}") from error
    except cst.ParserSyntaxError as error:
        raise EditError(f"line {error.raw_line} cannot be parsed: edit the file by hand") from error


def _replaced(module: cst.Module, old: cst.CSTNode, new: cst.CSTNode) -> str:
    edited = module.deep_replace(old, new)
    assert isinstance(edited, cst.Module)
    return edited.code


class _Lists(cst.CSTVisitor):
    """Finds every list that is the value of the key, in any notation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Clients] = []

    def _take(self, key: object, value: cst.BaseExpression | None) -> None:
        if key == KEY and isinstance(value, cst.List | cst.Tuple):
            self.found.append(value)

    def visit_DictElement(self, node: cst.DictElement) -> None:
        self._take(_literal(node.key), node.value)

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
    name = _fields(record).get("name")
    return _literal(name.value) if name else None


def _fields(record: cst.BaseExpression) -> dict[str, Field]:
    if isinstance(record, cst.Call):
        return {arg.keyword.value: arg for arg in record.args if arg.keyword}
    if isinstance(record, cst.Dict):
        pairs = (each for each in record.elements if isinstance(each, cst.DictElement))
        return {str(_literal(pair.key)): pair for pair in pairs}
    return {}


def _literal(node: cst.BaseExpression) -> Value | None:
    if isinstance(node, cst.SimpleString | cst.ConcatenatedString):
        value = node.evaluated_value
        return value if isinstance(value, str) else None
    if isinstance(node, cst.Name) and node.value in ("True", "False"):
        return node.value == "True"
    return None


def _with_field(record: Record, name: str, value: Value) -> Record:
    written = cst.parse_expression(f'"{value}"' if isinstance(value, str) else repr(value))
    if known := _fields(record).get(name):
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
