"""The operating system, its names and name servers drift."""

from tests.integration.drift.case import drifts

SYSTEM = (
    *drifts(
        "System",
        "system.no-unit-has-undeclared-overrides",
        (
            "updates-run-yearly",
            "mkdir -p /usr/local/lib/systemd/system/apt-daily-upgrade.timer.d; printf '[Timer]\\n"
            "OnCalendar=\\nOnCalendar=yearly\\n'"
            " >/usr/local/lib/systemd/system/apt-daily-upgrade.timer.d/year.conf",
            "year.conf changes apt-daily-upgrade.timer: it sets OnCalendar",
        ),
    ),
    *drifts(
        "System",
        "system.apt-waits-for-another-package-manager",
        ("apt-settings-deleted", "rm /etc/apt/apt.conf.d/zz-llmhost", "zz-llmhost is missing"),
        (
            "apt-settings-edited",
            "sed -i s/300/1/ /etc/apt/apt.conf.d/zz-llmhost",
            "zz-llmhost has other content",
        ),
        (
            "apt-settings-writable",
            "chmod 0666 /etc/apt/apt.conf.d/zz-llmhost",
            "zz-llmhost has mode 0666",
        ),
        (
            "apt-settings-owned-by-another-user",
            "chown nobody /etc/apt/apt.conf.d/zz-llmhost",
            "zz-llmhost belongs to nobody:root",
        ),
    ),
    *drifts(
        "System",
        "system.security-fixes-install-themselves-without-a-reboot",
        (
            "updates-removed",
            "apt-get -y -qq remove unattended-upgrades",
            "unattended-upgrades is not installed",
        ),
        (
            "updates-timer-disabled",
            "systemctl disable --now apt-daily-upgrade.timer",
            "apt-daily-upgrade.timer",
        ),
        (
            "updates-timer-masked",
            "systemctl mask --now apt-daily.timer",
            "apt-daily.timer is masked",
        ),
    ),
    *drifts(
        "System",
        "system.all-packages-are-fully-installed",
        (
            "package-half-configured",
            "sed -i '/^Package: hostname$/,/^Status/s/^Status.*/Status: install ok"
            " half-configured/' /var/lib/dpkg/status",
            "hostname is half-configured",
        ),
    ),
    *drifts(
        "System",
        "system.clock-shows-the-declared-time-zone",
        (
            "zone-changed",
            "ln -sfn /usr/share/zoneinfo/America/Lima /etc/localtime",
            "America/Lima, not Asia/Seoul",
        ),
        ("zone-removed", "rm /etc/localtime", "the time zone is UTC"),
    ),
    *drifts(
        "System",
        "system.kernel-has-the-declared-parameters",
        (
            "sysctl-at-run-time",
            "sysctl -w net.core.somaxconn=128",
            "net.core.somaxconn is 128, not 4096",
        ),
        (
            "sysctl-set-by-the-site-at-run-time",
            "sysctl -w net.ipv4.tcp_keepalive_time=7200",
            "net.ipv4.tcp_keepalive_time is 7200, not 600",
        ),
        ("sysctl-file-deleted", "rm /etc/sysctl.d/60-llmhost.conf", "60-llmhost.conf is missing"),
        (
            "sysctl-file-edited",
            "echo net.ipv4.ip_forward=0 >>/etc/sysctl.d/60-llmhost.conf",
            "60-llmhost.conf has other content",
        ),
    ),
    *drifts(
        "System",
        "system.sshd-starts-at-boot",
        ("sshd-disabled", "systemctl disable ssh.service", "ssh.service does not start at boot"),
        ("sshd-masked", "systemctl mask ssh.service", "ssh.service is masked"),
    ),
)

NETWORK = (
    *drifts(
        "Network",
        "network.host-has-the-declared-name",
        ("hostname-at-run-time", "hostname other", "other"),
        ("hostname-file-edited", "echo other >/etc/hostname", "other"),
    ),
    *drifts(
        "Network",
        "network.declared-names-resolve-to-their-addresses",
        (
            "hosts-entry-edited",
            "sed -i s/192.0.2.7/192.0.2.8/ /etc/hosts",
            "/etc/hosts lacks files.example for 192.0.2.7",
        ),
        (
            "hosts-entry-deleted",
            "sed -i /files.example/d /etc/hosts",
            "/etc/hosts lacks files.example",
        ),
    ),
    *drifts(
        "Network",
        "network.host-uses-the-declared-name-servers",
        (
            "name-server-changed",
            "echo nameserver 192.0.2.53 >/etc/resolv.conf",
            "/etc/resolv.conf",
        ),
    ),
)
