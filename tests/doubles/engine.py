"""A double of an inference engine: answers at once, streams on time, and remembers what it got.

It proves what passes the gateway and when; it says nothing about a real engine. It is a program of
its own, so that its timing does not depend on what the tests' process does meanwhile.
"""

import asyncio
import http.client
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]

MEMORY = "/_double/memory"
"""Where it tells what it remembers; asking is not remembered."""


@dataclass(frozen=True)
class Request:
    """What arrived: header names in lower case, the target as it was sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: str

    @property
    def options(self) -> dict[str, Any]:
        """The JSON body, empty if there is none."""
        try:
            options = json.loads(self.body)
        except ValueError:
            return {}
        return options if isinstance(options, dict) else {}


@dataclass
class Engine:
    """Runs the double on 127.0.0.1:`port`, as a context manager.

    A request's JSON body says how to answer: `stream` (server-sent events, or with `lines` lines of
    JSON), `chunks` or `max_tokens` (how many), `interval` (seconds between them), `status`,
    `headers`. `abandoned` counts streams whose client hung up.
    """

    port: int

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.doubles.engine", str(self.port)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=ROOT)
        for _ in range(200):
            try:
                self._memory()
            except ConnectionRefusedError:
                assert self._process.poll() is None, f"port {self.port} is not to be had"
                time.sleep(0.05)
            else:
                return self
        raise AssertionError("the double does not start")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(10)

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in order."""
        return [Request(**request) for request in self._memory()["requests"]]

    @property
    def abandoned(self) -> int:
        """Streams that were not read to their end."""
        return int(self._memory()["abandoned"])

    def _memory(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", MEMORY)
            return dict(json.load(connection.getresponse()))
        finally:
            connection.close()


@dataclass
class _Server:
    requests: list[Request] = field(default_factory=list)
    abandoned: int = 0

    async def serve(self, port: int) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _read(reader):
                if request.target == MEMORY:
                    _head(writer, {}, "application/json", [json.dumps(asdict(self)).encode()])
                    continue
                self.requests.append(request)
                await self._answer(request, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        options = request.options
        if not options.get("stream"):
            models = [{"id": "double"}]  # what /v1/models answers
            said = {"headers": request.headers, "target": request.target, "data": models}
            _head(writer, options, "application/json", [json.dumps(said).encode()])
            await writer.drain()
            return
        lines = bool(options.get("lines"))
        _head(writer, options, "application/x-ndjson" if lines else "text/event-stream", None)
        try:
            async for chunk in _chunks(options, lines=lines):
                writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                await writer.drain()
                if writer.transport.is_closing():
                    raise ConnectionError
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        except ConnectionError:
            self.abandoned += 1
            raise


async def _read(reader: asyncio.StreamReader) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    pairs = (line.split(":", 1) for line in lines if line)
    headers = {key.lower(): value.strip() for key, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body.decode("latin-1"))


def _head(
    writer: asyncio.StreamWriter, options: dict[str, Any], kind: str, body: list[bytes] | None
) -> None:
    lines = [f"HTTP/1.1 {options.get('status', 200)} Double", f"Content-Type: {kind}"]
    lines += [f"{key}: {value}" for key, value in options.get("headers", {}).items()]
    if body is None:
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {sum(map(len, body))}")
    writer.write("\r\n".join([*lines, "", ""]).encode() + b"".join(body or []))


async def _chunks(options: dict[str, Any], *, lines: bool) -> AsyncIterator[bytes]:
    for number in range(options.get("chunks", options.get("max_tokens", 3))):
        if number:
            await asyncio.sleep(options.get("interval", 0.05))
        token = [{"index": 0, "delta": {"content": "word "}}]  # as OpenAI's interface has it
        said = json.dumps({"number": number, "choices": token})
        yield f"{said}\n".encode() if lines else f"data: {said}\n\n".encode()
    if not lines:
        yield b"data: [DONE]\n\n"


if __name__ == "__main__":
    asyncio.run(_Server().serve(int(sys.argv[1])))
