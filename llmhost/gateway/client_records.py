"""`api_clients` in an inventory's source text, edited in place.

An inventory is Python that people write and comment, so it is changed at the positions that
Python's own parser names, and everything else in it stays as it was.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

KEY = "api_clients"

Value = str | bool

# What may follow the last item of a list that is written one item a line.
_REST_OF_LINE = re.compile(r",?(?P<comment>\s*#.*)?\s*")


class EditError(ValueError):
    """The text can not be edited by a program; the sentence says what to do by hand."""


@dataclass(frozen=True)
class _Edit:
    """Text to put between two positions (in bytes) of the source."""

    start: int
    end: int
    text: str


def added(source: str, client: str, sha256: str) -> str:
    """The source with a record for a new client at the end of its list of clients."""
    lists = list(_lists(source))
    if any(_named(record, client) for each in lists for record in each.elts):
        raise EditError(f"'{client}' has a record already: rotate its key instead")
    if len(lists) != 1:
        raise EditError(f"{len(lists)} lists of {KEY} are in this file: add the line by hand")
    [clients] = lists
    record = f'{{"name": "{client}", "sha256": "{sha256}"}}'
    if clients.elts:
        edit = _after(source, clients.elts, record)
    else:
        inside = _offset(source, clients.lineno, clients.col_offset) + 1
        edit = _Edit(inside, inside, record)
    return _checked(source, edit, client, {"name": client, "sha256": sha256})


def changed(source: str, client: str, values: Mapping[str, Value]) -> str:
    """The source with these fields of a client's record set or added."""
    for field, value in values.items():
        source = _with_field(source, client, field, value)
    return source


def field(source: str, client: str, name: str) -> Value | None:
    """A field of a client's record, None if it is not there."""
    values = [value for key, value in _fields(_record(source, client)) if key == name]
    if not values:
        return None
    if isinstance(values[0], ast.Constant) and isinstance(values[0].value, str | bool):
        return values[0].value
    raise EditError(f"{name} of '{client}' is computed: change it by hand")


def _with_field(source: str, client: str, field: str, value: Value) -> str:
    record = _record(source, client)
    pairs = _fields(record)
    written = f'"{value}"' if isinstance(value, str) else repr(value)
    for key, node in pairs:
        if key == field:
            edit = _Edit(_start(source, node), _end(source, node), written)
            break
    else:
        pair = f'"{field}": {written}' if isinstance(record, ast.Dict) else f"{field}={written}"
        edit = _after(source, [node for _, node in pairs], pair)
    return _checked(source, edit, client, {field: value})


def _lists(source: str) -> Iterator[ast.List | ast.Tuple]:
    """Every list that is the value of the key, however it is written."""
    for node in ast.walk(_parsed(source)):
        pairs: list[tuple[str | None, ast.expr | None]] = []
        if isinstance(node, ast.Dict | ast.Call):
            pairs += _fields(node)
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            pairs += [(name, node.value) for name in names]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            pairs.append((node.target.id, node.value))
        for key, value in pairs:
            if key == KEY and isinstance(value, ast.List | ast.Tuple):
                yield value


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise EditError(f"line {error.lineno} is not Python: {error.msg}") from error


def _fields(record: ast.Dict | ast.Call) -> list[tuple[str | None, ast.expr]]:
    if isinstance(record, ast.Call):
        return [(keyword.arg, keyword.value) for keyword in record.keywords]
    keys = (key.value if isinstance(key, ast.Constant) else None for key in record.keys)
    return [(str(key), value) for key, value in zip(keys, record.values, strict=True)]


def _named(record: ast.expr, client: str) -> bool:
    if not isinstance(record, ast.Dict | ast.Call):
        return False
    return any(
        key == "name" and isinstance(value, ast.Constant) and value.value == client
        for key, value in _fields(record)
    )


def _record(source: str, client: str) -> ast.Dict | ast.Call:
    found = [record for each in _lists(source) for record in each.elts if _named(record, client)]
    if len(found) != 1:
        raise EditError(f"{len(found)} records of '{client}' are in this file: change it by hand")
    assert isinstance(found[0], ast.Dict | ast.Call)
    return found[0]


def _after(source: str, items: Sequence[ast.expr], text: str) -> _Edit:
    """Put text after the last of some items, on a line of its own if that item ends its line."""
    last = items[-1]
    end = _end(source, last)
    rest = source.encode()[end:].split(b"\n", 1)[0].decode()
    if not (found := _REST_OF_LINE.fullmatch(rest)):
        return _Edit(end, end, f", {text}")
    line = source.splitlines()[last.lineno - 1]
    indent = line[: len(line) - len(line.lstrip())]
    comment = found["comment"] or ""
    return _Edit(end, end + len(rest.encode()), f",{comment}\n{indent}{text},")


def _start(source: str, node: ast.expr) -> int:
    return _offset(source, node.lineno, node.col_offset)


def _end(source: str, node: ast.expr) -> int:
    assert node.end_lineno is not None and node.end_col_offset is not None
    return _offset(source, node.end_lineno, node.end_col_offset)


def _offset(source: str, line: int, column: int) -> int:
    """Position in bytes, which is how Python's parser counts columns."""
    before = source.splitlines(keepends=True)[: line - 1]
    return len("".join(before).encode()) + column


def _checked(source: str, edit: _Edit, client: str, expected: Mapping[str, Value]) -> str:
    """Apply an edit, and read back that it did what it should."""
    encoded = source.encode()
    text = (encoded[: edit.start] + edit.text.encode() + encoded[edit.end :]).decode()
    for name, value in expected.items():
        if field(text, client, name) != value:
            raise EditError(f"{name} of '{client}' can not be set by a program: do it by hand")
    return text
