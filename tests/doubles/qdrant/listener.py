"""HTTP for the double: one event loop reads, writes and searches, threads do everything else.

Threads that search would spend as much time on waiting for the interpreter and on waking each other
as the core spends on searching, which says nothing about a server in Rust.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from tests.doubles.qdrant.queries import BadRequest, Json
from tests.doubles.qdrant.server import AlreadyExists, NotFound, Server

_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)", re.I)
_CLOSE = re.compile(rb"\r\nConnection: *close", re.I)
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 409: "Conflict"}
_LARGEST = 32 * 2**20
"""Bytes of a request; the server's default."""
_THREADS = 4
_IDLE_SECONDS = 1.0


class Listener:
    """A bound server that still has to be run."""

    def __init__(self, port: int, address: str, store: Server) -> None:
        self._socket = socket.create_server((address, port), backlog=128)
        self.server_port: int = self._socket.getsockname()[1]
        self.store = store
        self._running, self._ended = threading.Event(), threading.Event()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self.store.close()

    def serve_forever(self) -> None:
        """Answer until `shutdown`."""
        with ThreadPoolExecutor(_THREADS) as threads:
            asyncio.run(self._serve(threads))
        self._ended.set()

    async def _serve(self, threads: ThreadPoolExecutor) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._running.set()
        client = partial(_Client, self.store, threads)
        async with await self._loop.create_server(client, sock=self._socket):
            while not self._stopped.is_set():
                await self._loop.run_in_executor(threads, self.store.index, _IDLE_SECONDS)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), _IDLE_SECONDS / 2)

    def shutdown(self) -> None:
        """From another thread; waits until no request is being answered."""
        self._running.wait()
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._ended.wait()


class _Client(asyncio.Protocol):
    """A connection: one request at a time, JSON in and out, in the server's envelope."""

    def __init__(self, store: Server, threads: ThreadPoolExecutor) -> None:
        self._store, self._threads = store, threads
        self._received = bytearray()
        self._busy = False

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport: asyncio.Transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer when a request is complete."""
        self._received += data
        self._next()

    def _next(self) -> None:
        end = self._received.find(b"\r\n\r\n")
        if self._busy or end < 0:
            return
        head = bytes(self._received[:end])
        length = _LENGTH.search(head)
        size = end + 4 + (int(length[1]) if length else 0)
        if len(self._received) < size:
            return
        body = bytes(self._received[end + 4 : size])
        del self._received[:size]
        self._busy = True
        method, target, version = head.split(b"\r\n", 1)[0].decode().split(" ")
        path = target.partition("?")[0]
        loop = asyncio.get_running_loop()
        close = version == "HTTP/1.0" or bool(_CLOSE.search(head))
        if path.endswith("/points/query"):
            self._send(self._answer(method, path, body), close)
            return
        answer = loop.run_in_executor(self._threads, self._answer, method, path, body)
        answer.add_done_callback(lambda answered: self._send(answered.result(), close))

    def _answer(self, method: str, path: str, body: bytes) -> bytes:
        if len(body) > _LARGEST:
            said = f"({len(body)} bytes) is larger than allowed (limit: {_LARGEST} bytes)."
            error = {"error": f"Payload error: JSON payload {said}"}
            return _response(400, {"status": error, "time": 0.0})
        try:
            result = self._store.answer(method, path, json.loads(body) if body else None)
            return _response(200, {"result": result, "status": "ok", "time": 0.0})
        except NotFound as error:
            return _response(404, {"status": {"error": f"Not found: {error}"}, "time": 0.0})
        except AlreadyExists as error:
            return _response(409, {"status": {"error": f"Wrong input: {error}"}, "time": 0.0})
        except (BadRequest, ValueError, KeyError, TypeError) as error:
            return _response(400, {"status": {"error": f"Wrong input: {error}"}, "time": 0.0})

    def _send(self, answer: bytes, last: bool) -> None:
        self._busy = False
        if not self._transport.is_closing():
            self._transport.write(answer)
            if last:
                self._transport.close()
            else:
                self._next()


def _response(status: int, body: Json) -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data
