"""Drift of the limits on where containers may connect to."""

from tests.integration.drift.case import drifts

TABLE = "inet llmhost_egress"
_CONNECTIONS = "egress.containers-connect-only-to-declared-addresses"
_AT_BOOT = "egress.rules-are-loaded-before-docker-starts"

EGRESS = (
    *drifts(
        "Egress",
        _CONNECTIONS,
        ("the rules of containers removed", f"nft delete table {TABLE}", "is not loaded"),
        ("a rule of containers removed", f"nft flush chain {TABLE} forward", "is no longer loaded"),
        (
            "containers admitted to SSH",
            f"nft insert rule {TABLE} containers tcp dport 22 accept",
            "'tcp dport 22 accept' was added to the nftables table llmhost_egress",
        ),
        (
            "the rules of containers put to sleep",
            f"nft add table {TABLE} '{{ flags dormant; }}'",
            "'flags dormant' was added",
        ),
    ),
    *drifts(
        "Egress",
        _AT_BOOT,
        ("the file of rules emptied", "echo >/etc/llmhost/egress.nft", "has other content"),
        (
            "Docker started without the rules",
            "cd /etc/systemd/system/docker.service.d; rm 50-llmhost-egress.conf; systemctl"
            " daemon-reload",
            "50-llmhost-egress.conf is missing",
        ),
    ),
)
