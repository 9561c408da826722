"""Send an announcement to the channels that are declared."""

import json
import smtplib
import ssl
from collections.abc import Callable, Iterator, Mapping
from email.message import EmailMessage
from typing import Any

import httpx

from llmhost.options.announce import Announce
from llmhost.secret import is_reference, read_secret, read_token
from llmhost.units import reason

SECONDS = 15
"""Time limit of each step of a channel."""


def send(options: Announce, body: Mapping[str, Any]) -> list[str]:
    """Send the JSON object to the webhook and its `text` as a mail. Returns a sentence for each
    channel that failed; they contain no secrets."""
    return [why for channel in _channels(options) if (why := channel(options, body))]


def _channels(options: Announce) -> Iterator[Callable[[Announce, Mapping[str, Any]], str]]:
    if options.webhook:
        yield _post
    if options.mail_to:
        yield _mail


def _post(options: Announce, body: Mapping[str, Any]) -> str:
    assert options.webhook
    try:
        secret = is_reference(options.webhook)
        url = read_secret(options.webhook) if secret else options.webhook
        token = read_token(options.webhook_token) if options.webhook_token else ""
    except ValueError as error:
        return f"announce_webhook {error}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.post(url, json=dict(body), headers=headers, timeout=SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The text of the error may contain the URL, which may be a secret.
        why = type(error).__name__ if secret else reason(error)
        return f"the webhook could not be reached: {why}"
    return "" if answer.is_success else f"the webhook answered {answer.status_code}"


def _mail(options: Announce, body: Mapping[str, Any]) -> str:
    assert options.smtp_host
    place = f"{options.smtp_host}:{options.smtp_port}"
    try:
        password = read_secret(options.smtp_password) if options.smtp_password else ""
    except ValueError as error:
        return f"announce_smtp_password {error}"
    try:
        with _connection(options) as server:
            if options.smtp_user:
                server.login(options.smtp_user, password)
            server.send_message(message(options, body))
    except smtplib.SMTPAuthenticationError as error:
        return f"the mail server {place} refused the login with {error.smtp_code}"
    except smtplib.SMTPRecipientsRefused as error:
        return f"the mail server {place} refused {', '.join(error.recipients)}"
    except (OSError, smtplib.SMTPException) as error:
        return f"no mail could be sent by {place}: {reason(error)}"
    return ""


def _connection(options: Announce) -> smtplib.SMTP:
    host, port = options.smtp_host or "", options.smtp_port
    context = ssl.create_default_context()
    if options.smtp_security == "tls":
        return smtplib.SMTP_SSL(host, port, timeout=SECONDS, context=context)
    server = smtplib.SMTP(host, port, timeout=SECONDS)
    if options.smtp_security == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


def message(options: Announce, body: Mapping[str, Any]) -> EmailMessage:
    """The mail: its subject is the first line of the text."""
    subject, _, rest = str(body["text"]).partition("\n")
    mail = EmailMessage()
    mail["Subject"] = f"llmhost: {subject}"
    mail["From"] = options.mail_from
    mail["To"] = ", ".join(options.mail_to)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(rest.strip() or subject)
    return mail


def main(text: str) -> list[str]:
    """From a JSON object with `options` and `body`."""
    given = json.loads(text)
    return send(Announce.model_validate(given["options"]), given["body"])
