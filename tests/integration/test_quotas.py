"""Quotas of tokens under the real nginx: what exceeds one is refused, however a client calls."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from llmhost.gateway.keys import digest, new_key
from tests.integration.local_gateway import (
    LocalGateway,
    counters,
    free_ports,
    local_gateway,
    nginx,
)

pytestmark = pytest.mark.machines
LIMIT = 1000
KEYS = {name: new_key() for name in ("capped", "before", "second", "free")}


class Engine(BaseHTTPRequestHandler):
    """Reports the tokens of the body's `report`, or streams `events` without a report."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_GET(self) -> None:
        self._answer([b'{"object":"list","data":[]}'])

    def do_POST(self) -> None:
        Engine.asked += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "events" in body:
            event = b'data: {"model":"m","choices":[{"delta":{"content":"a"}}]}\n\n'
            self._answer([event] * body["events"], body.get("pause", 0))
        else:
            read, written = body["report"]
            usage = {"prompt_tokens": read, "completion_tokens": written}
            self._answer([json.dumps({"model": "m", "usage": usage}).encode()])

    def _answer(self, pieces: list[bytes], pause: float = 0) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in [*pieces, b""]:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
                time.sleep(pause)
        except OSError:
            pass  # the client closed the connection

    def log_message(self, *_: object) -> None:
        pass


class Site:
    """A gateway with an engine, and the requests of its clients."""

    def __init__(self, gateway: LocalGateway) -> None:
        self.gateway = gateway
        self.client = httpx.Client(base_url=gateway.url, timeout=30)

    def send(self, name: str, **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEYS[name]}"}
        return self.client.post("/v1/completions", headers=headers, json=body)

    def spend(self, name: str, read: int, written: int) -> int:
        status = self.send(name, report=[read, written]).status_code
        self.settle()
        return status

    def settle(self) -> None:
        """Until nginx has ended the last request: a client may have its answer a little earlier."""
        time.sleep(0.1)

    def used(self, name: str = "capped") -> int:
        day, tokens = self.file(name).read_text().split()
        assert day == f"{datetime.now():%Y-%m-%d}"
        return int(tokens)

    def file(self, name: str = "capped") -> Path:
        return counters(self.gateway.directory) / name


def inventory(engine: int) -> dict[str, Any]:
    port, status = free_ports(2)
    quota = {"tokens_per_day": LIMIT}
    until = (datetime.now().astimezone() + timedelta(days=1)).isoformat()
    previous = {"previous_sha256": digest(KEYS["before"]), "previous_until": until}
    return {
        "services": ["llamacpp"],
        "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "llamacpp_port": engine,
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "gateway_count_tokens": True,
        "api_clients": [
            {"name": "capped", "sha256": digest(KEYS["capped"]), **previous, **quota},
            {"name": "second", "sha256": digest(KEYS["second"]), **quota},
            {"name": "free", "sha256": digest(KEYS["free"])},
        ],
    }


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[str, Any]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    Thread(target=server.serve_forever, daemon=True).start()
    data = inventory(server.server_port)
    with local_gateway(data, tmp_path_factory.mktemp("quota") / "nginx") as gateway:
        yield Site(gateway), data
    server.shutdown()


@pytest.fixture
def site(running: tuple[Site, dict[str, Any]]) -> Site:
    """The site on a new day."""
    for file in counters(running[0].gateway.directory).iterdir():
        file.unlink()
    return running[0]


def refused(answer: httpx.Response) -> bool:
    return answer.status_code == 429 and answer.json()["error"]["code"] == "tokens_used"


def test_client_is_refused_once_its_tokens_are_used(site: Site) -> None:
    assert site.spend("capped", 600, 399) == 200
    assert site.spend("capped", 1, 4) == 200  # one is left, and nobody knows how long an answer is
    assert site.used() == 1004
    asked = Engine.asked
    answer = site.send("capped", report=[1, 1])
    assert refused(answer) and Engine.asked == asked
    midnight = (datetime.now() + timedelta(days=1)).replace(hour=0, minute=0, second=0)
    assert f"retry after {midnight:%Y-%m-%d} 00:00" in answer.json()["error"]["message"]
    left = (midnight - datetime.now()).total_seconds()
    assert abs(int(answer.headers["Retry-After"]) - left) < 30
    headers = {"Authorization": f"Bearer {KEYS['capped']}"}
    assert refused(site.client.get("/v1/models", headers=headers))
    line = site.gateway.logged(answer.headers["X-Request-ID"])
    assert (line["client"], line["refusal"], line["day_tokens"]) == ("capped", "tokens_used", "")


def test_quota_is_each_clients_own_and_others_have_none(site: Site) -> None:
    assert site.spend("capped", LIMIT, 0) == 200
    assert refused(site.send("capped", report=[1, 1]))
    assert site.spend("second", 1, 1) == 200
    assert site.spend("free", 10**6, 1) == 200 and not site.file("free").exists()
    assert site.spend("free", 1, 1) == 200


def test_second_key_of_a_client_has_no_second_quota(site: Site) -> None:
    assert site.spend("before", LIMIT, 0) == 200
    assert refused(site.send("before", report=[1, 1]))
    assert refused(site.send("capped", report=[1, 1]))


def test_quota_outlives_reload_restart_and_rotation(
    running: tuple[Site, dict[str, Any]], site: Site
) -> None:
    assert site.spend("capped", 500, 0) == 200
    directory = site.gateway.directory
    site.gateway.reload(running[1])
    assert site.spend("capped", 499, 0) == 200
    log = directory / "logs/gateway.json"
    log.rename(log.with_suffix(".1"))
    nginx(directory, "-s", "reopen")
    pid = (directory / "nginx.pid").read_text()
    nginx(directory, "-s", "stop")
    for _ in range(100):
        if not Path(f"/proc/{pid.strip()}").exists():
            break
        time.sleep(0.05)
    nginx(directory)
    assert site.used() == 999
    assert site.spend("capped", 1, 0) == 200
    assert refused(site.send("capped", report=[1, 1]))


def test_aborted_streams_are_charged_too(site: Site) -> None:
    """An engine reports nothing of them; a client could otherwise read for nothing."""
    headers = {"Authorization": f"Bearer {KEYS['capped']}"}
    body = {"events": 1000, "pause": 0.002}
    for _ in range(40):
        with site.client.stream("POST", "/v1/completions", headers=headers, json=body) as answer:
            if answer.status_code == 429:
                break
            received = b""
            for piece in answer.iter_raw():
                received += piece
                if received.count(b"data:") >= 50:
                    break
        site.settle()
    else:
        pytest.fail("the quota was never used")
    assert LIMIT <= site.used() < 2 * LIMIT


def test_stream_without_figures_is_charged_by_its_events(site: Site) -> None:
    assert site.send("capped", events=400).text.count("data:") == 400
    site.settle()
    assert 400 <= site.used() <= 500  # and the request


def test_refused_request_costs_nothing(site: Site) -> None:
    headers = {"Authorization": f"Bearer {KEYS['capped']}"}
    assert site.client.post("/v1/nothing", headers=headers).status_code == 404
    assert site.client.delete("/v1/completions", headers=headers).status_code == 405
    assert site.client.get("/v1/models?key=x", headers=headers).status_code == 401
    site.settle()
    assert site.spend("capped", 10, 0) == 200
    assert site.used() == 10


def test_new_day_begins_at_zero(site: Site) -> None:
    assert site.spend("capped", LIMIT, 0) == 200
    assert refused(site.send("capped", report=[1, 1]))
    yesterday = datetime.now() - timedelta(days=1)
    site.file().write_text(f"{yesterday:%Y-%m-%d} {LIMIT:019d}\n")
    assert site.spend("capped", 3, 4) == 200
    assert site.used() == 7


@pytest.mark.parametrize("content", ["", "x", "\0" * 31, "9" * 31, "a\n" * 40])
def test_damaged_counter_begins_anew_and_counts(site: Site, content: str) -> None:
    assert site.spend("capped", 1, 0) == 200
    site.file().write_text(content)
    assert site.spend("capped", LIMIT, 0) == 200
    assert site.file().read_text()[:31].endswith(f"{LIMIT:019d}\n")
    assert refused(site.send("capped", report=[1, 1]))


def test_client_whose_tokens_cannot_be_counted_is_refused(site: Site) -> None:
    asked = Engine.asked
    site.file().mkdir()
    try:
        answer = site.send("capped", report=[1, 1])
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "quota_unreadable" and Engine.asked == asked
        assert site.spend("second", 1, 1) == 200 and site.spend("free", 1, 1) == 200
    finally:
        site.file().rmdir()


def test_concurrent_requests_are_all_counted(site: Site) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: site.send("second", report=[2, 1]), range(300)))
    site.settle()
    assert {answer.status_code for answer in answers} == {200} and site.used("second") == 900
