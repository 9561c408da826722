"""Templates rendered strictly: an unknown name is an error, never an empty string."""

from contextlib import suppress
from functools import cache
from pathlib import Path

import jinja2
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from jinja2.bccache import Bucket, FileSystemBytecodeCache

from llmhost.resources import TEMPLATES

_COMPILED = f"%s.jinja2-{jinja2.__version__}.cache"


class _Compiled(FileSystemBytecodeCache):
    """Compiled templates beside their sources, as Python keeps its own; nowhere, where the checkout
    is read-only."""

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
        # Configuration files are taken as they are; what a server says must not become markup.
        autoescape=select_autoescape(("html.j2",), default=False),
    )


def render(name: str, **values: object) -> str:
    """Text of `templates/<name>` with these values; raises jinja2.UndefinedError on a gap."""
    return _environment().get_template(name).render(**values)
