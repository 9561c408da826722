"""`announce_*`: who hears of the end of a deploy, and of outdated versions."""

from typing import Annotated, Literal

from pydantic import model_validator

from llmhost.options.base import Section
from llmhost.options.kind import Mistake
from llmhost.options.types import HostName, Items, Line, OneOf, Port, SecretReference, text
from llmhost.secret import is_reference

WebhookUrl = Annotated[
    str,
    text(
        r"https?://[^\s@]+|env:[A-Za-z_][A-Za-z0-9_]*|file:\S.*",
        "a URL without a user name, or a reference to a secret that is one",
        "https://chat.example.com/hooks/llm",
    ),
]
MailAddress = Annotated[
    str, text(r"[^\s@<>,]+@[^\s@<>,]+", "an e-mail address", "operators@example.com")
]


class Announce(Section):
    """Announcements by the controller: a webhook, mail, or both. If one fails, a deploy prints a
    warning and succeeds."""

    webhook: WebhookUrl | None = None
    """Where to POST a JSON object: a URL, or `env:NAME` or `file:PATH` of the controller if the URL
    is a secret, as those of chat services are."""

    webhook_token: SecretReference | None = None
    """Where the controller finds a bearer token for the webhook: `env:NAME` or `file:PATH`."""

    mail_to: Items[MailAddress] = ()
    """Addresses to send a mail to. It needs `announce_smtp_host`."""

    mail_from: MailAddress = "llmhost@localhost"
    """Sender of the mail."""

    smtp_host: HostName | None = None
    """Mail server."""

    smtp_port: Port = 587
    """Its port."""

    smtp_security: OneOf[Literal["starttls", "tls", "off"]] = "starttls"
    """`starttls`: TLS is required and begins after the greeting. `tls`: from the first byte, as on
    port 465. `off`: without TLS, for a server on the controller or a closed network."""

    smtp_user: Line | None = None
    """User to log in as; none: no login."""

    smtp_password: SecretReference | None = None
    """Where the controller finds the user's password: `env:NAME` or `file:PATH`."""

    after: OneOf[Literal["change", "failure", "always"]] = "change"
    """Deploys that are announced: those that `change` something or fail, those with a `failure`, or
    `always` every one. A dry run is never announced."""

    @model_validator(mode="after")
    def _is_whole(self) -> "Announce":
        if self.mail_to and not self.smtp_host:
            raise Mistake("is given without announce_smtp_host; add it", "mail_to")
        if self.smtp_user and not self.smtp_password:
            raise Mistake("is given without announce_smtp_password; add it", "smtp_user")
        if self.smtp_password and not self.smtp_user:
            raise Mistake("is given without announce_smtp_user; add it", "smtp_password")
        if self.smtp_user and self.smtp_security == "off":
            raise Mistake("would send the password without TLS; use starttls", "smtp_security")
        if self.webhook_token and not self.webhook:
            raise Mistake("is given without announce_webhook; add it", "webhook_token")
        return self

    @property
    def is_declared(self) -> bool:
        """Whether anyone hears of anything."""
        return bool(self.webhook or self.mail_to)

    @property
    def secrets(self) -> dict[str, str]:
        """References to secrets, by option."""
        found = {
            "announce_webhook": self.webhook,
            "announce_webhook_token": self.webhook_token,
            "announce_smtp_password": self.smtp_password,
        }
        return {key: each for key, each in found.items() if each and is_reference(each)}
