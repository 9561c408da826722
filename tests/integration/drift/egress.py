"""Drift of the limits on where containers may connect to."""

from tests.integration.drift.case import drifts

TABLE = "inet llmhost_egress"
_CONNECTIONS = "egress.containers-connect-only-to-declared-addresses"
_AT_BOOT = "egress.rules-are-loaded-before-docker-starts"

EGRESS = (
    *drifts(
        "Egress",
        _CONNECTIONS,
        ("egress-table-removed", f"nft delete table {TABLE}", "is not loaded"),
        ("egress-rules-flushed", f"nft flush chain {TABLE} forward", "is no longer loaded"),
        (
            "egress-rule-added",
            f"nft insert rule {TABLE} containers tcp dport 22 accept",
            "'tcp dport 22 accept' was added to the nftables table llmhost_egress",
        ),
        (
            "egress-table-dormant",
            f"nft add table {TABLE} '{{ flags dormant; }}'",
            "'flags dormant' was added",
        ),
    ),
    *drifts(
        "Egress",
        _AT_BOOT,
        ("egress-file-emptied", "echo >/etc/llmhost/egress.nft", "has other content"),
        (
            "egress-drop-in-removed",
            "cd /etc/systemd/system/docker.service.d; rm 50-llmhost-egress.conf; systemctl"
            " daemon-reload",
            "50-llmhost-egress.conf is missing",
        ),
    ),
)
