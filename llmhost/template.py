"""Renders templates strictly: an unknown name is an error, never an empty string."""

from contextlib import suppress
from functools import cache
from pathlib import Path

import jinja2
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from jinja2.bccache import Bucket, FileSystemBytecodeCache

from llmhost.resources import TEMPLATES

_COMPILED = f"%s.jinja2-{jinja2.__version__}.cache"


class _Compiled(FileSystemBytecodeCache):
    """Compiled templates next to their sources, like Python's; none in a read-only checkout."""

    def dump_bytecode(self, bucket: Bucket) -> None:
        with suppress(OSError):
            Path(self.directory).mkdir(exist_ok=True)
            super().dump_bytecode(bucket)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        bytecode_cache=_Compiled(str(TEMPLATES / "__pycache__"), _COMPILED),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Only HTML is escaped, because it contains output of servers.
        autoescape=select_autoescape(("html.j2",), default=False),
    )


def render(name: str, **values: object) -> str:
    """Text of `templates/<name>` with these values; raises jinja2.UndefinedError if one is
    missing."""
    return _environment().get_template(name).render(**values)
