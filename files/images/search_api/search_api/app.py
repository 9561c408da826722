"""The interface over HTTP; FastAPI describes it at /openapi.json."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from search_api.bulk import load
from search_api.errors import (
    ErrorBody,
    ServiceError,
    StoreUnavailable,
    fail,
    refuse,
    refuse_http,
    refuse_invalid,
)
from search_api.metrics import SEARCH_REQUESTS, SEARCH_SECONDS, exposition
from search_api.page import add_page
from search_api.reembed import Reembedding, renew_outdated
from search_api.schema import (
    DOCUMENT_EXAMPLE,
    Collections,
    CollectionState,
    DocumentNames,
    HybridQuestion,
    Loaded,
    NewCollection,
    NewDocument,
    NewDocuments,
    Question,
    Results,
)
from search_api.search import Search

CACHE_HEADER = "X-Search-Cache"
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 404, 409, 500, 503)
}
_LINES = {
    "required": True,
    "content": {
        "application/x-ndjson": {
            "schema": NewDocument.model_json_schema(),
            "example": orjson.dumps(DOCUMENT_EXAMPLE).decode() + "\n",
        }
    },
}
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$", examples=["handbook"])]
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _Request(Request):
    async def json(self) -> Any:
        """Unlike Python's own reader, orjson refuses NaN and half characters."""
        if not hasattr(self, "_json"):
            self._json = orjson.loads(await self.body())
        return self._json


class JsonRoute(APIRoute):
    """A route that reads strict JSON."""

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's own."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(_Request(request.scope, request.receive))

        return strict


class SearchRoute(JsonRoute):
    """A route that measures every search, refused and failed ones too."""

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's own."""
        handler = super().get_route_handler()

        async def measured(request: Request) -> Response:
            begun = time.perf_counter()
            outcome, cache = "failed", "miss"
            try:
                response = await handler(request)
                outcome, cache = "ok", response.headers.get(CACHE_HEADER, cache)
                return response
            except RequestValidationError:
                outcome = "refused"
                raise
            except ServiceError as error:
                outcome = "refused" if error.status < 500 else "failed"
                raise
            finally:
                SEARCH_REQUESTS.labels(outcome, cache).inc()
                SEARCH_SECONDS.observe(time.perf_counter() - begun)

        return measured


def create_app(search: Search, renews: bool = True) -> FastAPI:
    """The application; it gets ready while it already answers. Of several processes, one creates
    the default collection and renews outdated ones."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        preparation = asyncio.create_task(_prepare(search, renews))
        yield
        preparation.cancel()
        with suppress(asyncio.CancelledError):
            await preparation

    app = FastAPI(title="Search", version="2", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.router.route_class = JsonRoute
    app.add_exception_handler(ServiceError, refuse)
    app.add_exception_handler(RequestValidationError, refuse_invalid)
    app.add_exception_handler(HTTPException, refuse_http)
    app.add_exception_handler(Exception, fail)
    _add_searches(app, search)
    _add_documents(app, search)
    _add_collections(app, search)
    _add_state(app, search)
    add_page(app)
    return app


async def _prepare(search: Search, renews: bool) -> None:
    await search.prepare(creates=renews)
    if renews:
        await renew_outdated(search)


def _add_searches(app: FastAPI, search: Search) -> None:
    async def answer(question: Question) -> Response:
        found, kept = await search.find(question)
        headers = {CACHE_HEADER: "hit" if kept else "miss"}
        return Response(found, media_type="application/json", headers=headers)

    async def find(question: Question) -> Response:
        """Search by meaning and by words, fused by rank."""
        return await answer(question)

    async def find_hybrid(question: HybridQuestion) -> Response:
        """The same with other names: `collection` and `score_threshold`."""
        return await answer(question.question())

    for path, endpoint in (("/v1/search", find), ("/search/hybrid", find_hybrid)):
        app.router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            response_model=Results,
            responses=_ERRORS,
            route_class_override=SearchRoute,
        )


def _add_documents(app: FastAPI, search: Search) -> None:
    @app.put("/v1/documents", status_code=204, responses=_ERRORS)
    async def put_documents(body: NewDocuments) -> None:
        """Add documents, or replace those with the same ids."""
        await search.put(body.collection, body.documents)

    @app.post("/v1/documents/delete", status_code=204, responses=_ERRORS)
    async def delete_documents(body: DocumentNames) -> None:
        """Remove documents by id."""
        await search.remove(body.collection, body.ids)

    @app.put(
        "/v1/collections/{name}/documents",
        responses=_ERRORS,
        openapi_extra={"requestBody": _LINES},
    )
    async def load_documents(
        name: Name, request: Request, skip: Annotated[int, Query(ge=0, le=10**12)] = 0
    ) -> Loaded:
        """Add many documents, a line of JSON each. An error says how many lines are stored:
        repeat the request with `skip`."""
        return Loaded(lines=await load(search, name, request.stream(), skip))


def _add_collections(app: FastAPI, search: Search) -> None:
    running: set[asyncio.Task[bool]] = set()

    @app.get("/v1/collections", responses=_ERRORS)
    async def list_collections() -> Collections:
        """Names of all collections."""
        return Collections(collections=await search.collections.names())

    @app.post("/v1/collections", status_code=201, responses=_ERRORS)
    async def create_collection(new: NewCollection) -> CollectionState:
        """Create a collection."""
        search.require_ready()
        await search.create(new)
        return await search.describe(new.name)

    @app.get("/v1/collections/{name}", responses=_ERRORS)
    async def describe_collection(name: Name) -> CollectionState:
        """Its settings, and how many documents it has."""
        return await search.describe(name)

    @app.delete("/v1/collections/{name}", status_code=204, responses=_ERRORS)
    async def delete_collection(name: Name) -> None:
        """Delete a collection with its documents."""
        await search.delete(name)

    @app.post("/v1/collections/{name}/reembed", status_code=202, responses=_ERRORS)
    async def reembed_collection(name: Name) -> None:
        """Compute all vectors again. Until the end, searches use the old ones and changes are
        refused."""
        search.require_ready()
        reembedding = Reembedding(search)
        task = asyncio.create_task(reembedding.finish(await reembedding.begin(name)))
        running.add(task)
        task.add_done_callback(running.discard)


def _add_state(app: FastAPI, search: Search) -> None:
    @app.get("/health", responses={503: {"model": ErrorBody}})
    async def health() -> dict[str, str]:
        """Whether the service has found the others since it started."""
        if not search.ready:
            raise StoreUnavailable
        return {"status": "ok"}

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(exposition(), media_type=CONTENT_TYPE_LATEST)
