"""The real Alertmanager, with our configuration, sends a mail and a webhook: each receiver listens
here."""

import asyncio
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_string
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmhost.monitoring.alertmanager import configuration
from llmhost.options.monitoring import Monitoring
from tests.integration.local_gateway import free_ports

pytestmark = pytest.mark.machines
ALERT = {
    "labels": {"alertname": "GpuGone", "instance": "llm-server", "severity": "critical"},
    "annotations": {
        "summary": "A GPU of llm-server does not answer",
        "description": "1 GPUs answer.",
    },
}


class MailServer:
    """A mail server that takes up one message a connection (RFC 5321), without encryption."""

    def __init__(self, port: int) -> None:
        self.mails: list[tuple[str, str]] = []
        self._port = port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recipient = ""
        writer.write(b"220 test\r\n")
        while line := (await reader.readline()).decode():
            word = line.split()[0].upper()
            if word == "RCPT":
                recipient = line.partition("<")[2].partition(">")[0]
            if word == "DATA":
                writer.write(b"354 go\r\n")
                text = (await reader.readuntil(b"\r\n.\r\n")).decode()
                self.mails.append((recipient, text))
            writer.write(b"221 bye\r\n" if word == "QUIT" else b"250 ok\r\n")
            await writer.drain()
            if word == "QUIT":
                break
        writer.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        loop = asyncio.new_event_loop()
        started = asyncio.start_server(self._serve, "127.0.0.1", self._port)
        loop.run_until_complete(started)
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        yield
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@contextmanager
def webhook(port: int) -> Iterator[list[dict[str, Any]]]:
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append({"path": self.path, **json.loads(body)})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield posted
        server.shutdown()


def test_alert_is_mailed_to_everyone_and_posted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, smtp, hook = free_ports(3)
    monkeypatch.setenv("WEBHOOK", f"http://127.0.0.1:{hook}/hooks/T0K3N")
    options = Monitoring(
        enabled=True,
        server=True,
        webhook="env:WEBHOOK",
        mail_to=("one@example.com", "two@example.com"),
        mail_server=f"127.0.0.1:{smtp}",
        mail_tls=False,
    )
    text = configuration(options).replace('"group_wait": "30s"', '"group_wait": "1s"')
    (tmp_path / "alertmanager.yml").write_text(text)
    command = [
        "prometheus-alertmanager",
        f"--config.file={tmp_path / 'alertmanager.yml'}",
        f"--storage.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{own}",
        "--cluster.listen-address=",
    ]
    mail = MailServer(smtp)
    with (
        mail.running(),
        webhook(hook) as posted,
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            url = f"http://127.0.0.1:{own}/api/v2/alerts"
            wait_for(lambda: sent(url, ALERT))
            wait_for(lambda: len(mail.mails) == 2 and bool(posted))
        finally:
            process.terminate()
    assert {recipient for recipient, _ in mail.mails} == {"one@example.com", "two@example.com"}
    message = message_from_string(mail.mails[0][1], policy=default)
    assert message["From"] == "llmhost@localhost" and "GpuGone" in message["Subject"]
    body = message.get_body(("html", "plain"))
    assert body and "A GPU of llm-server does not answer" in body.get_content()
    assert posted[0]["path"] == "/hooks/T0K3N"
    assert [alert["labels"] for alert in posted[0]["alerts"]] == [ALERT["labels"]]


def sent(url: str, alert: dict[str, Any]) -> bool:
    try:
        return httpx.post(url, json=[alert]).status_code == 200
    except httpx.TransportError:
        return False


def wait_for(true: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)
