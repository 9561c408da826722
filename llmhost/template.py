"""Templates rendered strictly: an unknown name is an error, never an empty string."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

ROOT = Path(__file__).resolve().parent.parent


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(ROOT / "templates"),
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
