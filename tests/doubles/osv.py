"""A double of OSV's API: https://google.github.io/osv.dev/post-v1-query/.

It answers with the records that a test declares, one a page, for the version asked about. The OSV
client of pip-audit 2.10.1 reads it, and asks the same question.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Osv:
    """`records` by ecosystem, name and version; `asked` are the bodies of all requests."""

    url: str = ""
    records: dict[tuple[str, str, str], list[dict[str, Any]]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200


@contextmanager
def osv() -> Iterator[Osv]:
    """A running double on the loopback."""
    served = Osv()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append(body)
            package = body["package"]
            key = package["ecosystem"], package["name"], body["version"]
            page = int(body.get("page_token") or 0)
            records = served.records.get(key, [])[page:]
            answer: dict[str, Any] = {"vulns": records[:1]} if records else {}
            if len(records) > 1:
                answer["next_page_token"] = str(page + 1)
            text = json.dumps(answer).encode()
            self.send_response(served.status if self.path == "/v1/query" else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield served
        server.shutdown()


def record(
    identifier: str, package: tuple[str, str], fixed: str = "", severity: str = "", **more: Any
) -> dict[str, Any]:
    """A record as GitHub's advisories have it: https://ossf.github.io/osv-schema/."""
    ecosystem, name = package
    events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
    return {
        "id": identifier,
        "schema_version": "1.7.0",
        "modified": "2026-11-01T00:00:00Z",
        "summary": f"About {identifier}",
        "affected": [
            {
                "package": {"ecosystem": ecosystem, "name": name},
                "ranges": [
                    {"type": "GIT", "repo": "https://x/y", "events": [{"fixed": "0123abc"}]},
                    {"type": "ECOSYSTEM", "events": events},
                ],
            }
        ],
        "database_specific": {"severity": severity} if severity else {},
        **more,
    }
