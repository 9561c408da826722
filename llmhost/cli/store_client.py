"""The site's store of weights, written from the controller: a directory, a web server or a bucket.

A web server must accept PUT, as WebDAV servers and repositories of artifacts do.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import httpx

from llmhost.models.store import address, credentials, signed
from llmhost.options.model_store import ModelStore
from llmhost.units import MIB, reason

_BLOCK = MIB
_PART = 64 * MIB
_MOST_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_SECONDS = 300
_DENIED = (401, 403)

UNKNOWN = -1
"""The size of a file whose length a server does not state."""


class StoreError(Exception):
    """Why a store cannot be filled; a sentence."""


class DirectoryStore:
    """A directory of this machine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        if not directory.is_dir():
            raise StoreError(
                f"{directory} is not a directory of this machine; mount the share here, too, or"
                " name its place with --to"
            )

    @property
    def near(self) -> Path:
        """A directory with space for what will be stored."""
        return self._directory

    def size(self, sha256: str) -> int | None:
        """Bytes of a file; None if it is missing."""
        place = self._directory / sha256
        return place.stat().st_size if place.is_file() else None

    def put(self, sha256: str, file: Path, *, move: bool = False) -> None:
        """Store a file; with `move`, one that is below `near` and not needed there. Raises
        StoreError."""
        try:
            with tempfile.TemporaryDirectory(prefix=".llmhost-", dir=self._directory) as place:
                draft = Path(place, sha256)
                file.replace(draft) if move else shutil.copyfile(file, draft)
                draft.chmod(0o644)
                draft.replace(self._directory / sha256)
        except OSError as error:
            raise StoreError(f"{self._directory} cannot be written: {error.strerror}") from None


class WebStore:
    """A web server, or a bucket."""

    near = None

    def __init__(self, store: ModelStore, client: httpx.Client) -> None:
        self._store, self._http = store, client
        try:
            self._secrets = credentials(store)
        except ValueError as error:
            raise StoreError(str(error)) from None

    def size(self, sha256: str) -> int | None:
        """Bytes of a file, or UNKNOWN; None if it is missing. Raises StoreError."""
        answer = self._ask("HEAD", sha256)
        # A bucket answers 403 for a missing file if the key may not list it.
        if answer.status_code not in (403, 404):
            self._check(answer)
        length = answer.headers.get("Content-Length", "")
        return int(length or UNKNOWN) if answer.is_success else None

    def put(self, sha256: str, file: Path, *, move: bool = False) -> None:
        """Store a file, which is only read. Raises StoreError."""
        del move
        size = file.stat().st_size
        with file.open("rb") as stream:
            if self._is_bucket and size > _PART:
                self._put_in_parts(sha256, stream, size)
            else:
                self._check(self._send("PUT", sha256, stream, size))

    @property
    def _is_bucket(self) -> bool:
        return (self._store.location or "").startswith("s3://")

    def _put_in_parts(self, sha256: str, stream: BinaryIO, size: int) -> None:
        """https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html"""
        begun = self._check(self._ask("POST", sha256, {"uploads": ""}))
        upload = {"uploadId": _found(r"<UploadId>([^<]+)</UploadId>", begun.text)}
        length = max(_PART, -(-size // _MOST_PARTS))
        listed = ""
        try:
            for number, start in enumerate(range(0, size, length), 1):
                part = {**upload, "partNumber": str(number)}
                sent = self._send("PUT", sha256, stream, min(length, size - start), part)
                tag = self._check(sent).headers.get("ETag", "")
                listed += f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
            whole = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"
            # The answer begins before the parts are joined, so that its body has the result.
            ended = self._check(self._ask("POST", sha256, upload, whole.encode()))
            _found(r"(<CompleteMultipartUploadResult)", ended.text)
        except BaseException:
            self._ask("DELETE", sha256, upload)
            raise

    def _send(
        self,
        method: str,
        sha256: str,
        stream: BinaryIO,
        size: int,
        query: dict[str, str] | None = None,
    ) -> httpx.Response:
        return self._ask(
            method, sha256, query, _blocks(stream, size), {"Content-Length": str(size)}
        )

    def _ask(
        self,
        method: str,
        sha256: str,
        query: dict[str, str] | None = None,
        content: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        url, auth = address(self._store, sha256), None
        if self._is_bucket and self._secrets:
            url = signed(self._store, self._secrets, method, sha256, datetime.now(UTC), query)
        elif self._secrets:
            auth = httpx.BasicAuth(self._secrets.user, self._secrets.password)
        # Some servers keep files elsewhere.
        more: dict[str, Any] = {"auth": auth, "follow_redirects": method == "HEAD"}
        try:
            return self._http.request(method, url, content=content, headers=headers, **more)
        except httpx.HTTPError as error:
            place = urlsplit(url).hostname  # the whole URL is a secret
            why = reason(error)
            raise StoreError(f"{place} does not answer: {why}; check its address") from None

    def _check(self, answer: httpx.Response) -> httpx.Response:
        """The answer, if it is a success. Raises StoreError."""
        if answer.is_success:
            return answer
        host, status = answer.request.url.host, answer.status_code
        code = re.search(r"<Code>(\w+)</Code>", answer.text) if self._is_bucket else None
        said = f"{status} {code[1]}" if code else str(status)
        if status in _DENIED:
            fix = "check model_store_key_id and model_store_key, and that they may write"
        elif self._is_bucket:
            fix = "check model_store_location, model_store_endpoint and model_store_region"
        else:
            fix = (
                "let it accept PUT, or write the files to a directory with --to and copy them to"
                " the server"
            )
        raise StoreError(f"{host} answered {said} to {answer.request.method}; {fix}")


def opened(store: ModelStore, to: Path | None, client: httpx.Client) -> DirectoryStore | WebStore:
    """The store, or the directory that is written instead. Raises StoreError."""
    if to or store.share:
        return DirectoryStore(to or Path(store.share))
    return WebStore(store, client)


def client() -> httpx.Client:
    return httpx.Client(timeout=_SECONDS)


def _blocks(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (block := stream.read(min(_BLOCK, size))):
        size -= len(block)
        yield block


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        code = re.search(r"<Code>(\w+)</Code>", text)
        raise StoreError(f"the bucket did not accept a file in parts: {code[1] if code else text}")
    return found[1]
