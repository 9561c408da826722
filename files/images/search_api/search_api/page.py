"""The page to try queries (search_api/page): static files that need no key. What it asks for needs
one."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, Response

FILES = Path(__file__).with_name("page")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    # Nothing from elsewhere, no inline script, no form that is sent by the browser itself.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """One route for each file; index.html is at `/`."""
    for path in sorted(FILES.iterdir()):
        route = "/" if path.name == "index.html" else f"/{path.name}"
        app.add_api_route(route, _answers(path), include_in_schema=False)


def _answers(path: Path) -> Callable[[], Awaitable[Response]]:
    content, kind = path.read_bytes(), _TYPES[path.suffix]

    async def answer() -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return answer
