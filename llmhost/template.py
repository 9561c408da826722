"""Templates rendered strictly: an unknown name is an error, never an empty string."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).resolve().parent.parent


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(ROOT / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration files, not HTML
    )


def render(name: str, **values: object) -> str:
    """Text of `templates/<name>` with these values; raises jinja2.UndefinedError on a gap."""
    return _environment().get_template(name).render(**values)
