"""A double of docling-serve: its interface, and the text of plain documents unchanged.

As a program it serves on a port: `python3 docling.py PORT`; it needs the standard library only.
"""

import base64
import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def convert(request: dict[str, Any]) -> dict[str, Any]:
    """The body of `POST /v1/convert/source` for a source that the request itself holds."""
    source = request["sources"][0]
    text = base64.b64decode(source["base64_string"]).decode(errors="replace")
    document = {"filename": source["filename"], "md_content": text}
    return {"document": document, "status": "success", "errors": [], "processing_time": 0.0}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._send(200 if self.path == "/health" else 404, {"status": "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = self.path == "/v1/convert/source"
        self._send(200 if found else 404, convert(body) if found else {})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


if __name__ == "__main__":
    # The first process of a container is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), _Handler).serve_forever()
