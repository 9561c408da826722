"""Serves one file over HTTP, in pieces if asked to, and remembers what was asked for."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """`ranges` are the Range headers of all requests, None where there was none."""

    url: str
    ranges: list[str | None] = field(default_factory=list)


@contextmanager
def file_server(address: str, data: bytes, *, resumable: bool = True) -> Iterator[FileServer]:
    """Serve `data` under any path at `address`; without `resumable` always from the start."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            served.ranges.append(wanted)
            start = 0
            if wanted and resumable:
                start = int(re.findall(r"\d+", wanted)[0])
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start:])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer((address, 0), Handler) as server:
        served = FileServer(f"http://{address}:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield served
        finally:
            server.shutdown()
