"""The interface over HTTP; FastAPI describes it at /openapi.json."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field

from search_api.errors import (
    ErrorBody,
    ServiceError,
    StoreUnavailable,
    fail,
    refuse,
    refuse_invalid,
)
from search_api.metrics import SEARCH_REQUESTS, SEARCH_SECONDS
from search_api.search import Body, Name, NewDocument, Question, Results, Search

CACHE_HEADER = "X-Search-Cache"
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 500, 503)
}


class NewDocuments(Body):
    """Documents to be added or replaced."""

    documents: Annotated[list[NewDocument], Field(min_length=1, max_length=256)]


class DocumentNames(Body):
    """Documents to be removed; a name that is not there is passed over."""

    ids: Annotated[list[Name], Field(min_length=1, max_length=1024)]


def create_app(search: Search) -> FastAPI:
    """The application; it makes ready while it already answers."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        preparation = asyncio.create_task(search.prepare())
        yield
        preparation.cancel()
        with suppress(asyncio.CancelledError):
            await preparation

    app = FastAPI(title="Search", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_exception_handler(ServiceError, refuse)
    app.add_exception_handler(RequestValidationError, refuse_invalid)
    app.add_exception_handler(Exception, fail)
    app.middleware("http")(measure)
    _add_routes(app, search)
    return app


async def measure(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
    """Tell Prometheus of every search, refused and failed ones too."""
    if request.url.path != "/v1/search":
        return await proceed(request)
    begun = time.perf_counter()
    outcome, cache = "failed", "miss"
    try:
        response = await proceed(request)
        outcome = {2: "ok", 4: "refused"}.get(response.status_code // 100, "failed")
        cache = response.headers.get(CACHE_HEADER, cache)
        return response
    finally:
        SEARCH_REQUESTS.labels(outcome, cache).inc()
        SEARCH_SECONDS.observe(time.perf_counter() - begun)


def _add_routes(app: FastAPI, search: Search) -> None:
    @app.post("/v1/search", response_model=Results, responses=_ERRORS)
    async def find(question: Question) -> Response:
        """Search by meaning and by words, fused by rank."""
        answer, kept = await search.find(question)
        headers = {CACHE_HEADER: "hit" if kept else "miss"}
        return Response(answer, media_type="application/json", headers=headers)

    @app.put("/v1/documents", status_code=204, responses=_ERRORS)
    async def put_documents(body: NewDocuments) -> None:
        """Add documents, or replace those with the same ids."""
        await search.put(body.documents)

    @app.post("/v1/documents/delete", status_code=204, responses=_ERRORS)
    async def delete_documents(body: DocumentNames) -> None:
        """Remove documents by id."""
        await search.remove(body.ids)

    @app.get("/health", status_code=204, responses={503: {"model": ErrorBody}})
    async def health() -> None:
        """Whether the service has found the others since it started."""
        if not search.ready:
            raise StoreUnavailable

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
