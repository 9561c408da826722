"""Errors in the shape that OpenAI's clients know, which the gateway uses too."""

import logging
from typing import Any, Literal

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

_log = logging.getLogger(__name__)

Kind = Literal[
    "invalid_request",
    "not_found",
    "conflict",
    "overloaded",
    "store_unavailable",
    "embeddings_unavailable",
    "internal",
]


class ErrorDetail(BaseModel):
    """`type` is for programs, `message` for people."""

    type: Kind
    message: str
    stored_lines: int | None = None


class ErrorBody(BaseModel):
    """Body of every response that reports an error."""

    error: ErrorDetail


class ServiceError(Exception):
    """Ends a request with this status and body."""

    def __init__(self, status: int, kind: Kind, message: str, lines: int | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.stored_lines = status, kind, lines

    @property
    def response(self) -> JSONResponse:
        """Status, body and, where a retry can help, `Retry-After`."""
        detail = ErrorDetail(type=self.kind, message=str(self), stored_lines=self.stored_lines)
        headers = {"Retry-After": "1"} if self.status == 503 else None
        body = ErrorBody(error=detail).model_dump(exclude_none=True)
        return JSONResponse(body, self.status, headers)


class StoreUnavailable(ServiceError):
    """Qdrant did not respond, or not as expected."""

    def __init__(self) -> None:
        super().__init__(503, "store_unavailable", "The vector store does not respond.")


class EmbeddingsUnavailable(ServiceError):
    """The embedding service did not respond, or not as expected."""

    def __init__(self) -> None:
        super().__init__(
            503, "embeddings_unavailable", "The embedding service does not respond as expected."
        )


class Overloaded(ServiceError):
    """More requests wait than can be answered soon."""

    def __init__(self) -> None:
        super().__init__(503, "overloaded", "Too many requests are waiting.")


class NoCollection(ServiceError):
    """The collection does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(404, "not_found", f"There is no collection {name!r}.")


def invalid(message: str) -> ServiceError:
    """The request is wrong."""
    return ServiceError(400, "invalid_request", message)


def conflict(message: str) -> ServiceError:
    """The request is right, but not at this time."""
    return ServiceError(409, "conflict", message)


async def refuse(_request: Request, error: Exception) -> JSONResponse:
    """Handler of ServiceError."""
    assert isinstance(error, ServiceError)
    if error.status >= 500:
        _log.warning("%s %r", error, error.__cause__)
    return error.response


async def refuse_invalid(_request: Request, error: Exception) -> JSONResponse:
    """Handler of what FastAPI finds wrong with a request: every mistake, by its place."""
    assert isinstance(error, RequestValidationError)
    return invalid("; ".join(map(_mistake, error.errors()))).response


def _mistake(found: Any) -> str:
    return f"{'.'.join(str(part) for part in found['loc'][1:]) or 'body'}: {found['msg']}"


async def refuse_http(_request: Request, error: Exception) -> JSONResponse:
    """Handler of unknown paths and wrong methods, which keep their status."""
    assert isinstance(error, HTTPException)
    kind: Kind = "not_found" if error.status_code == 404 else "invalid_request"
    response = ServiceError(error.status_code, kind, str(error.detail)).response
    response.headers.update(error.headers or {})
    return response


async def fail(_request: Request, _error: Exception) -> JSONResponse:
    """Handler of everything else; the log has the details."""
    return ServiceError(500, "internal", "The search failed; its log says why.").response
