"""What looks after the stack, and the receipt, drift."""

from tests.integration.drift.case import drifts

HEALING = (
    *drifts(
        "Healing",
        "system.no-unit-has-undeclared-overrides",
        (
            "healing-changed-by-a-drop-in",
            "mkdir -p /etc/systemd/system/llmhost-heal.service.d; printf '[Service]\\n"
            "ExecStart=\\nExecStart=/bin/true\\n'"
            " >/etc/systemd/system/llmhost-heal.service.d/no.conf; systemctl daemon-reload",
            "no.conf changes llmhost-heal.service: it sets ExecStart",
        ),
    ),
    *drifts(
        "Healing",
        "healing.timer-runs-where-it-is-declared",
        ("healing-stopped", "systemctl stop llmhost-heal.timer", "llmhost-heal.timer is inactive"),
        (
            "healing-disabled",
            "systemctl disable llmhost-heal.timer",
            "llmhost-heal.timer does not start at boot",
        ),
        (
            "healing-timer-deleted",
            "systemctl stop llmhost-heal.timer; rm /etc/systemd/system/llmhost-heal.timer",
            "llmhost-heal.timer is missing",
        ),
    ),
    *drifts(
        "Healing",
        "healing.containers-are-healed-as-soon-as-docker-runs",
        (
            "healing-without-docker",
            "systemctl disable llmhost-heal.service",
            "llmhost-heal.service does not start at boot",
        ),
    ),
    *drifts(
        "Healing",
        "healing.last-run-succeeded",
        (
            "healing-without-effect",
            "sed -i 's|^ExecStart=.*|ExecStart=/bin/true|'"
            " /etc/systemd/system/llmhost-heal.service; systemctl daemon-reload",
            "llmhost-heal.service has other content",
        ),
        (
            "healing-unit-not-reloaded",
            "cp -p /etc/systemd/system/llmhost-heal.service /root/unit; sed -i"
            " 's|^ExecStart=.*|ExecStart=/bin/true|' /etc/systemd/system/llmhost-heal.service;"
            " systemctl daemon-reload; sleep 1; cat /root/unit"
            " >/etc/systemd/system/llmhost-heal.service",
            "llmhost-heal.timer",
        ),
        (
            "healing-script-not-executable",
            "chmod 0644 /usr/local/sbin/llmhost-heal",
            "/usr/local/sbin/llmhost-heal has mode 0644",
        ),
    ),
)

RECEIPT = (
    *drifts(
        "Receipt",
        "receipt.receipt-is-of-these-settings",
        ("receipt-deleted", "rm /var/lib/llmhost/receipt.json", "there is no receipt yet"),
        (
            "receipt-edited",
            'sed -i \'s/"settings": "[^"]*"/"settings": "0"/\' /var/lib/llmhost/receipt.json',
            "the receipt differs in settings",
        ),
        (
            "receipt-broken",
            "echo '{' >/var/lib/llmhost/receipt.json",
            "the receipt cannot be read",
        ),
    ),
    *drifts(
        "Receipt",
        "receipt.receipt-is-writable-only-by-root",
        ("receipt-writable", "chmod 0666 /var/lib/llmhost/receipt.json", "has mode 0666"),
        (
            "receipts-owned-by-another-user",
            "chown nobody /var/lib/llmhost",
            "/var/lib/llmhost belongs to nobody:root",
        ),
    ),
)
