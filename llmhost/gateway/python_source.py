"""Records in an inventory's source text, which is Python with comments. Pure."""

import ast

import libcst as cst

Value = str | bool
Record = cst.Dict | cst.Call
Field = cst.DictElement | cst.Arg


class EditError(ValueError):
    """The text cannot be edited automatically; the sentence says what to do by hand."""


def parsed(source: str) -> cst.Module:
    """The syntax tree of an inventory. Raises EditError."""
    try:
        ast.parse(source)  # its messages are familiar
        return cst.parse_module(source)
    except SyntaxError as error:
        raise EditError(f"line {error.lineno} is not Python: {error.msg}") from error
    except cst.ParserSyntaxError as error:
        raise EditError(f"line {error.raw_line} cannot be parsed: edit the file by hand") from error


def replaced(module: cst.Module, old: cst.CSTNode, new: cst.CSTNode) -> str:
    """The text with one node replaced."""
    edited = module.deep_replace(old, new)
    assert isinstance(edited, cst.Module)
    return edited.code


def fields_of(record: cst.BaseExpression) -> dict[str, Field]:
    """Fields of a record by name, written as `{"name": …}` or `dict(name=…)`."""
    if isinstance(record, cst.Call):
        return {arg.keyword.value: arg for arg in record.args if arg.keyword}
    if isinstance(record, cst.Dict):
        pairs = (each for each in record.elements if isinstance(each, cst.DictElement))
        return {str(literal(pair.key)): pair for pair in pairs}
    return {}


def taken_over(record: cst.BaseExpression) -> list[str]:
    """Variables whose fields a record has: of `{"name": …, **base}` or `dict(base, name=…)`."""
    if isinstance(record, cst.Call):
        found = [arg.value for arg in record.args if not arg.keyword]
    elif isinstance(record, cst.Dict):
        found = [each.value for each in record.elements if isinstance(each, cst.StarredDictElement)]
    else:
        found = []
    return [each.value for each in found if isinstance(each, cst.Name)]


def literal(node: cst.BaseExpression) -> Value | None:
    """The value of a text or a flag; None for anything else."""
    if isinstance(node, cst.SimpleString | cst.ConcatenatedString):
        value = node.evaluated_value
        return value if isinstance(value, str) else None
    if isinstance(node, cst.Name) and node.value in ("True", "False"):
        return node.value == "True"
    return None
