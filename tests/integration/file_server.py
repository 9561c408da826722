"""Serves one file over HTTP, in pieces if asked to, and remembers what was asked for."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PIECES = 40


@dataclass
class FileServer:
    """`ranges` are the Range headers of all downloads, None where there was none."""

    url: str
    ranges: list[str | None] = field(default_factory=list)


@contextmanager
def file_server(
    address: str, data: bytes, *, resumable: bool = True, token: str = "", seconds: float = 0
) -> Iterator[FileServer]:
    """Serve `data` under any path at `address`, over so many seconds; without `resumable` always
    from the start, and with a `token` to nobody who does not bear it."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._begin(0)

        def do_GET(self) -> None:
            if token and self.headers.get("Authorization") != f"Bearer {token}":
                self.send_error(401)
                return
            wanted = self.headers.get("Range")
            served.ranges.append(wanted)
            start = int(re.findall(r"\d+", wanted)[0]) if wanted and resumable else 0
            self._begin(start)
            step = -(-len(data) // _PIECES)
            for position in range(start, len(data), step):
                self.wfile.write(data[position : min(position + step, len(data))])
                time.sleep(seconds / _PIECES)

        def _begin(self, start: int) -> None:
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer((address, 0), Handler) as server:
        served = FileServer(f"http://{address}:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield served
        finally:
            server.shutdown()
