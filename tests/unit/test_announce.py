"""Announcements, to a real SMTP server (aiosmtpd) and a web server."""

import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

from llmhost.announce.message import (
    Author,
    DeployAnnouncement,
    HostEnd,
    deploy_announcement,
    is_wanted,
)
from llmhost.announce.process import announce
from llmhost.announce.send import send
from llmhost.docs.schemas import schema
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.options.announce import Announce

ROOT = Path(__file__).parents[2]
ENDS = (
    HostEnd(
        "b", "failed", ("Docker | Install Docker Engine",), "Stack | Run the declared services"
    ),
    HostEnd("a", "changed", ("Gateway | Configure nginx", "Receipt | Record what was deployed")),
    HostEnd("c", "unchanged"),
)
AUTHOR = Author("eva@laptop", "0.2.0", "0123456789abcdef" * 2 + "01234567")
ENDED = deploy_announcement(ENDS, AUTHOR, "2026-12-01T12:00:00Z", 83.21)
BODY = asdict(ENDED)


def test_announcement_names_hosts_changes_failures_and_duration() -> None:
    assert ENDED.text.splitlines() == [
        "Deploy of 3 hosts: 1 failed, 1 changed, 1 unchanged",
        "- a: changed; changed: Gateway | Configure nginx; Receipt | Record what was deployed",
        "- b: failed at Stack | Run the declared services; changed: Docker | Install Docker Engine",
        "- c: unchanged",
        "by eva@laptop, llmhost 01234567, 2026-12-01T12:00:00Z, 83 s",
    ]
    assert (ENDED.result, ENDED.seconds) == ("failed", 83.2)
    described = json.loads((ROOT / "docs/announcement.schema.json").read_text())
    assert described == schema(DeployAnnouncement)
    jsonschema_rs.validator_for(described).validate(json.loads(json.dumps(BODY)))


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        (HostEnd("a", "changed", ("x",)), {"change", "always"}),
        (HostEnd("a", "unchanged"), {"always"}),
        (HostEnd("a", "failed", (), "x"), {"change", "failure", "always"}),
        (HostEnd("a", "unreachable"), {"change", "failure", "always"}),
        (HostEnd("a", "interrupted", ("x",)), {"change", "failure", "always"}),
    ],
)
def test_only_wanted_deploys_are_announced(host: HostEnd, wanted: set[str]) -> None:
    ended = deploy_announcement([host], AUTHOR, "", 1)
    assert {after for after in ("change", "failure", "always") if is_wanted(ended, after)} == wanted


@dataclass
class Inbox:
    """What a server received: envelopes or requests."""

    port: int = 0
    mails: list[Envelope] = field(default_factory=list)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    status: int = 204


class _Box:
    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Envelope, address: str, options: Any
    ) -> str:
        if address.startswith("nobody@"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        self.inbox.mails.append(envelope)
        return "250 OK"


@contextmanager
def mail_server(**options: Any) -> Iterator[Inbox]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        inbox = Inbox(free.getsockname()[1])
    controller = Controller(_Box(inbox), hostname="127.0.0.1", port=inbox.port, **options)
    controller.start()
    try:
        yield inbox
    finally:
        controller.stop()


@contextmanager
def web_server() -> Iterator[Inbox]:
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            about = self.headers.get("Authorization", "")
            inbox.requests.append((self.path, about, json.loads(body)))
            self.send_response(inbox.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    inbox.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield inbox
    finally:
        server.shutdown()
        server.server_close()


def mailing(port: int, **more: Any) -> Announce:
    data = {"mail_to": ["ops@example.com"], "smtp_host": "127.0.0.1", "smtp_port": port}
    return Announce.model_validate({"smtp_security": "off", **data, **more})


def test_mail_has_the_announcement_and_its_title_as_subject() -> None:
    with mail_server() as inbox:
        assert send(mailing(inbox.port, mail_from="llm@example.com"), BODY) == []
    [mail] = inbox.mails
    assert (mail.mail_from, mail.rcpt_tos) == ("llm@example.com", ["ops@example.com"])
    assert isinstance(mail.content, bytes)
    read = message_from_bytes(mail.content, policy=default)
    assert read["Subject"] == "llmhost: Deploy of 3 hosts: 1 failed, 1 changed, 1 unchanged"
    assert "- c: unchanged" in read.get_content().splitlines()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(place / "key.pem"), "-out", str(place / "cert.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(
        [*command, "-nodes", "-days", "2", *names, *files], check=True, capture_output=True
    )
    return place


def context(certificate: Path) -> ssl.SSLContext:
    found = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    found.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return found


def login(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    known = isinstance(data, LoginPassword) and data.password == b"right"
    return AuthResult(success=known, handled=known)


def test_log_in_needs_tls_and_the_right_password(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    monkeypatch.setenv("PASSWORD_OF_MAIL", "right")
    secure = {"tls_context": context(certificate), "auth_required": True, "authenticator": login}
    account = {"smtp_user": "llm", "smtp_password": "env:PASSWORD_OF_MAIL"}
    with mail_server(**secure) as inbox:
        assert send(mailing(inbox.port, smtp_security="starttls", **account), BODY) == []
        assert len(inbox.mails) == 1
        monkeypatch.setenv("PASSWORD_OF_MAIL", "wrong-and-secret")
        [why] = send(mailing(inbox.port, smtp_security="starttls", **account), BODY)
        assert "refused the login with 535" in why and "wrong-and-secret" not in why
        assert len(inbox.mails) == 1


def test_certificate_of_a_stranger_is_refused(certificate: Path) -> None:
    with mail_server(tls_context=context(certificate)) as inbox:
        [why] = send(mailing(inbox.port, smtp_security="starttls"), BODY)
    assert "CERTIFICATE_VERIFY_FAILED" in why and inbox.mails == []


def test_server_without_tls_gets_nothing_if_tls_is_required() -> None:
    with mail_server() as inbox:
        [why] = send(mailing(inbox.port, smtp_security="starttls"), BODY)
    assert why.startswith("no mail could be sent by 127.0.0.1:") and inbox.mails == []


def test_refused_receiver_is_named() -> None:
    with mail_server() as inbox:
        [why] = send(mailing(inbox.port, mail_to=["nobody@example.com"]), BODY)
    assert why.endswith("refused nobody@example.com")


def test_webhook_gets_the_object_and_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_server() as inbox:
        (tmp_path / "url").write_text(f"http://127.0.0.1:{inbox.port}/secret-path\n")
        monkeypatch.setenv("TOKEN_OF_HOOK", "t0ken")
        options = Announce(webhook=f"file:{tmp_path}/url", webhook_token="env:TOKEN_OF_HOOK")
        assert announce(options, BODY) == []
        [(path, token, body)] = inbox.requests
        assert (path, token) == ("/secret-path", "Bearer t0ken")
        assert body == json.loads(json.dumps(BODY))
        inbox.status = 500
        assert announce(options, BODY) == ["the webhook answered 500"]


def test_unreachable_webhook_is_a_sentence_without_its_secret(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("http://127.0.0.1:1/secret-path")
    [why] = announce(Announce(webhook=f"file:{tmp_path}/url"), BODY)
    assert why == "the webhook could not be reached: ConnectError"
    (tmp_path / "token").write_text("t0ken\nof two lines")
    [why] = send(
        Announce(webhook="http://127.0.0.1:1/", webhook_token=f"file:{tmp_path}/token"), BODY
    )
    assert "whose value has spaces, line breaks" in why and "t0ken" not in why
    [why] = announce(Announce(webhook="file:/nowhere"), BODY)
    assert why.startswith("announce_webhook refers to the file /nowhere, which cannot be read")


def test_each_channel_is_tried_if_another_one_fails() -> None:
    with mail_server() as inbox:
        options = mailing(inbox.port, webhook="http://127.0.0.1:1/")
        assert len(send(options, BODY)) == 1
    assert len(inbox.mails) == 1


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            {"announce_mail_to": ["a@b"]},
            "announce_mail_to: is given without announce_smtp_host; add it",
        ),
        ({"announce_mail_to": ["a"]}, "write an e-mail address"),
        ({"announce_webhook": "chat"}, "a URL without a user name"),
        ({"announce_webhook": "https://me:pw@x/"}, "a URL without a user name"),
        (
            {"announce_webhook_token": "env:X"},
            "announce_webhook_token: is given without announce_webhook",
        ),
        (
            {"announce_smtp_user": "a"},
            "announce_smtp_user: is given without announce_smtp_password",
        ),
        (
            {
                "announce_smtp_user": "a",
                "announce_smtp_password": "env:X",
                "announce_smtp_security": "off",
            },
            "would send the password without TLS",
        ),
    ],
)
def test_mistakes_are_named(data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_settings(data, lambda _: ())
    [problem] = error.value.problems
    assert sentence in problem.sentence("h")


_PROGRAM = """
from gevent import monkey
monkey.patch_all()
import atexit, json, sys
from llmhost.announce.process import announce
from llmhost.options.announce import Announce
options = Announce(webhook=sys.argv[1])
atexit.register(lambda: print(announce(options, {"text": "end"})))
"""


def test_announcement_is_sent_while_the_interpreter_ends() -> None:
    with web_server() as inbox:
        url = f"http://localhost:{inbox.port}/"
        command = [sys.executable, "-c", _PROGRAM, url]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
    assert [body for _, _, body in inbox.requests] == [{"text": "end"}]
