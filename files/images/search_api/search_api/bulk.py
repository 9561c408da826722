"""Many documents in one request: a line of JSON each, stored batch by batch while they arrive."""

from collections.abc import AsyncIterator

from pydantic import ValidationError

from search_api.errors import ServiceError, invalid
from search_api.schema import NewDocument
from search_api.search import Search

BATCH = 128
LONGEST_LINE = 1_000_000
"""Bytes; as long as a line has no end, all of it is in memory."""


async def load(search: Search, name: str, body: AsyncIterator[bytes], skip: int) -> int:
    """Store the documents of all lines, and return their number.

    The next batch is read only when the last is stored: a client that is faster waits, and memory
    does not grow. Raises ServiceError with the lines that are stored: send the rest, or all with
    `skip`.
    """
    stored, batch, number = 0, list[NewDocument](), 0
    try:
        async for line in _lines(body):
            number += 1
            if number <= skip:
                stored = number
                continue
            if line:
                batch.append(_document(line, number))
            if len(batch) == BATCH:
                await search.put(name, batch)
                stored, batch = number, []
        if batch:
            await search.put(name, batch)
    except ServiceError as error:
        raise ServiceError(error.status, error.kind, str(error), stored) from error
    return number


def _document(line: bytes, number: int) -> NewDocument:
    try:
        return NewDocument.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise invalid(f"line {number}: {place or 'document'}: {first['msg']}") from error


async def _lines(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in body:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.strip()
        if len(rest) > LONGEST_LINE:
            raise invalid(f"a line is longer than {LONGEST_LINE} bytes")
    if rest.strip():
        yield rest.strip()
