"""Errors in the shape that OpenAI's clients know, which the gateway uses too."""

from typing import Literal

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel

Kind = Literal[
    "invalid_request", "not_found", "store_unavailable", "embeddings_unavailable", "internal"
]


class ErrorDetail(BaseModel):
    """`type` is for programs, `message` for people."""

    type: Kind
    message: str


class ErrorBody(BaseModel):
    """Body of every answer that is no success."""

    error: ErrorDetail


class ServiceError(Exception):
    """Ends a request with this status and body."""

    def __init__(self, status: int, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind

    @property
    def response(self) -> JSONResponse:
        detail = ErrorDetail(type=self.kind, message=str(self))
        return JSONResponse(ErrorBody(error=detail).model_dump(), self.status)


class StoreUnavailable(ServiceError):
    """Qdrant did not answer, or not as expected."""

    def __init__(self) -> None:
        super().__init__(503, "store_unavailable", "The vector store does not answer.")


class EmbeddingsUnavailable(ServiceError):
    """The embedding service did not answer, or not as expected."""

    def __init__(self) -> None:
        super().__init__(
            503, "embeddings_unavailable", "The embedding service does not answer as expected."
        )


async def refuse(_request: Request, error: Exception) -> JSONResponse:
    """Handler of ServiceError."""
    assert isinstance(error, ServiceError)
    return error.response


async def refuse_invalid(_request: Request, error: Exception) -> JSONResponse:
    """Handler of what FastAPI finds wrong with a request: every mistake, by its place."""
    assert isinstance(error, RequestValidationError)
    told = (
        f"{'.'.join(str(part) for part in each['loc'][1:]) or 'body'}: {each['msg']}"
        for each in error.errors()
    )
    return ServiceError(400, "invalid_request", "; ".join(told)).response


async def fail(_request: Request, _error: Exception) -> JSONResponse:
    """Handler of everything else; the log has the details."""
    return ServiceError(500, "internal", "The search failed; its log says why.").response
