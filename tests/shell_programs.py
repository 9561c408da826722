"""Which programs a shell script calls, read from its syntax tree."""

import re
from collections.abc import Iterator

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

_PARSER = Parser(Language(tree_sitter_bash.language()))
BUILTINS = {
    *(".", ":", "[", "alias", "break", "cd", "command", "continue", "echo", "eval", "exec", "exit"),
    *("export", "false", "kill", "local", "printf", "pwd", "read", "return", "set", "shift"),
    *("test", "trap", "true", "type", "umask", "unset", "wait"),
}
"""What the shell itself does (dash(1))."""
_KEYWORDS = {"do", "done", "elif", "else", "esac", "fi", "for", "if", "in", "then", "while"}
"""Taken for programs where the parser loses its way."""
_SHELLS = {"sh", "bash"}
_WRAPPERS = {"env", "exec", "nohup", "nsenter", "setsid", "sudo", "timeout", "xargs"}
"""They run the command that is in their arguments."""


def programs(script: str) -> set[str]:
    """Names of the programs that a script calls, without builtins and its own functions.

    A name that is computed at run time (`"$program" …`) is left out.
    """
    tree = _PARSER.parse(script.encode())
    nodes = list(_descendants(tree.root_node))
    definitions = [node for node in nodes if node.type == "function_definition"]
    functions = {_text(node.child_by_field_name("name")) for node in definitions}
    called = {name for node in nodes if node.type == "command" for name in _called(node)}
    return called - functions - BUILTINS - _KEYWORDS


def _descendants(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _descendants(child)


def _called(command: Node) -> Iterator[str]:
    words = [_word(node) for node in command.named_children if node.type != "variable_assignment"]
    yield from _of_words(words)


def _of_words(words: list[str]) -> Iterator[str]:
    if not words or not _is_name(words[0]):
        return
    name, *arguments = words
    yield name.rpartition("/")[2]
    if name in _SHELLS:
        scripts = (i for i, word in enumerate(arguments, 1) if re.fullmatch("-[a-z]*c", word))
        yield from programs("".join(arguments[next(scripts, len(arguments)) :][:1]))
    if name in _WRAPPERS:
        inner = (i for i, word in enumerate(arguments) if _is_name(word) and not word.isdecimal())
        yield from _of_words(arguments[next(inner, len(arguments)) :])


def _is_name(word: str) -> bool:
    return bool(word) and word[0].isalnum() | (word[0] in "/.[:") and not set(word) & set("$={}*")


def _word(node: Node) -> str:
    """A word without its quotes."""
    text = _text(node)
    if node.type == "raw_string":
        return text[1:-1]
    if node.type == "string":
        return text[1:-1].replace('\\"', '"').replace("\\$", "$")
    if node.type == "concatenation":
        return "".join(map(_word, node.named_children))
    return text


def _text(node: Node | None) -> str:
    return node.text.decode() if node and node.text else ""
