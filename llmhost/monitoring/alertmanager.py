"""Alertmanager's configuration: where alerts are sent. It is written as JSON, which is YAML too."""

import json
from typing import Any

from llmhost.monitoring.prometheus import DIRECTORY, HEADER
from llmhost.options.monitoring import Monitoring
from llmhost.secret import read_secret

CONFIGURATION = f"{DIRECTORY}/llmhost-alertmanager.yml"
DATA = "/var/lib/prometheus/alertmanager"
RECEIVER = "operators"


def configuration(options: Monitoring) -> str:
    """The file CONFIGURATION; it contains secrets. Raises ValueError without a secret."""
    document = {
        "route": {
            "receiver": RECEIVER,
            # One message for each kind of trouble, with all hosts that have it.
            "group_by": ["alertname"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": f"{options.repeat_hours}h",
        },
        # A host that does not answer at all needs no further messages about its parts.
        "inhibit_rules": [
            {
                "source_matchers": ['alertname="HostSilent"'],
                "target_matchers": ['alertname!="HostSilent"'],
                "equal": ["instance"],
            }
        ],
        "receivers": [{"name": RECEIVER, **_webhook(options), **_mail(options)}],
    }
    return HEADER + json.dumps(document, indent=2) + "\n"


def arguments(options: Monitoring) -> tuple[str, ...]:
    """Arguments of Alertmanager, which forms no cluster: it would listen on all addresses."""
    return (
        f"--config.file={CONFIGURATION}",
        f"--storage.path={DATA}",
        f"--web.listen-address=127.0.0.1:{options.alertmanager_port}",
        "--cluster.listen-address=",
    )


def _webhook(options: Monitoring) -> dict[str, Any]:
    if not options.webhook:
        return {}
    return {"webhook_configs": [{"url": read_secret(options.webhook), "send_resolved": True}]}


def _mail(options: Monitoring) -> dict[str, Any]:
    login = {}
    if options.mail_user and options.mail_password:
        password = read_secret(options.mail_password)
        login = {"auth_username": options.mail_user, "auth_password": password}
    receivers = [
        {
            "to": address,
            "from": options.mail_from,
            "smarthost": options.mail_server,
            "require_tls": options.mail_tls,
            "send_resolved": True,
            **login,
        }
        for address in options.mail_to
    ]
    return {"email_configs": receivers} if receivers else {}
