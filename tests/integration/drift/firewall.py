"""The firewall drifts."""

from tests.integration.drift.case import drifts

FIREWALL = (
    *drifts(
        "Firewall",
        "system.no-unit-has-undeclared-overrides",
        (
            "ufw-not-started",
            "mkdir -p /etc/systemd/system/ufw.service.d; printf '[Unit]\\n"
            "ConditionPathExists=/nonexistent\\n' >/etc/systemd/system/ufw.service.d/no.conf",
            "no.conf changes ufw.service: it sets ConditionPathExists",
        ),
    ),
    *drifts(
        "Firewall",
        "firewall.exactly-the-declared-rules-exist",
        (
            "rule-added",
            "ufw allow 9999/tcp",
            "the rule 'allow 9999/tcp from 0.0.0.0/0' is not declared",
        ),
        ("rule-deleted", "ufw --force delete 3", "is not open to"),
        (
            "rules-reordered",
            "ufw --force delete 1 && ufw insert 2 allow 22/tcp comment SSH",
            "the rules are in another order",
        ),
        (
            "rule-denies",
            "ufw insert 1 deny proto tcp from 192.0.2.1 to any port 22",
            "deny 22/tcp from 192.0.2.1",
        ),
        ("ufw-reset", "ufw --force reset", "port 22/tcp is not open to"),
    ),
    *drifts(
        "Firewall",
        "firewall.ufw-is-active-and-starts-at-boot",
        ("ufw-disabled", "ufw disable", "/etc/ufw/ufw.conf has other content"),
        ("ufw-disabled-at-boot", "systemctl disable ufw", "ufw does not start at boot"),
        ("ufw-masked", "systemctl mask ufw", "ufw does not start at boot"),
        ("ufw-removed", "apt-get -y -qq remove ufw", "ufw is not installed"),
    ),
    *drifts(
        "Firewall",
        "firewall.incoming-and-routed-packets-are-denied-by-default",
        ("ufw-allows-by-default", "ufw default allow incoming", "/etc/default/ufw has other"),
        ("ufw-forwards-by-default", "ufw default allow routed", "/etc/default/ufw has other"),
        (
            "ufw-without-ipv6",
            "sed -i s/IPV6=yes/IPV6=no/ /etc/default/ufw",
            "/etc/default/ufw has other content",
        ),
    ),
    *drifts(
        "Firewall",
        "firewall.rules-are-loaded-in-netfilter",
        (
            "iptables-accepts-a-port",
            "iptables -I INPUT -p tcp --dport 8081 -j ACCEPT",
            "-j ACCEPT' is loaded, but ufw did not add it",
        ),
        (
            "iptables-flushed",
            # Without the policy, which would lock everybody out.
            "iptables -P INPUT ACCEPT; iptables -F INPUT",
            "is no longer loaded",
        ),
        ("iptables-open", "iptables -P INPUT ACCEPT", ":INPUT DROP' is no longer loaded"),
        (
            "ip6tables-accepts-all",
            "ip6tables -I INPUT -j ACCEPT",
            "-A INPUT -j ACCEPT' is loaded, but ufw did not add it",
        ),
        (
            "ufw-base-rules-edited",
            "sed -i '/dport 68/d' /etc/ufw/before.rules",
            "files of ufw were edited",
        ),
    ),
    *drifts(
        "Firewall",
        "firewall.published-ports-are-guarded-before-docker-opens-them",
        ("docker-user-chain-flushed", "iptables -F DOCKER-USER", "DOCKER-USER"),
        (
            "docker-user-chain-bypassed",
            "iptables -I FORWARD -j ACCEPT",
            "-A FORWARD -j ACCEPT' is loaded, but ufw did not add it",
        ),
        (
            "docker-user-rules-deleted",
            "sed -i '/BEGIN llmhost/,/END llmhost/d' /etc/ufw/after.rules",
            "/etc/ufw/after.rules has other content",
        ),
    ),
)
