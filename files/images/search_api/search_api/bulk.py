"""Many documents in one request: a line of JSON each, stored batch by batch while they arrive."""

from codecs import BOM_UTF8
from collections.abc import AsyncIterator

import orjson
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
    stored, batch, number = skip, list[NewDocument](), 0
    try:
        await search.writable(name)
        async for line in _lines(body):
            number += 1
            if number == 1:
                line = line.removeprefix(BOM_UTF8)
            if line and number > skip:
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
        return NewDocument.model_validate(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        raise invalid(f"line {number}: no valid JSON: {error}") from error
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
