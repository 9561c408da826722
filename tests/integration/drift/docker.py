"""Docker Engine drifts."""

from tests.integration.drift.case import OTHER_VERSION, drifts

_OPEN = "-H fd:// -H tcp://0.0.0.0:2375"

DOCKER = (
    *drifts(
        "Docker",
        "docker.api-is-for-root-on-the-host-only",
        (
            "docker-api-opened-by-a-drop-in",
            "mkdir -p /etc/systemd/system/docker.service.d; printf '[Service]\\nExecStart=\\n"
            f"ExecStart=/usr/sbin/dockerd {_OPEN}\\n'"
            " >/etc/systemd/system/docker.service.d/open.conf;"
            " systemctl daemon-reload; systemctl restart docker",
            "docker.service.d/open.conf changes docker.service: it sets ExecStart",
        ),
        (
            "docker-api-opened-until-boot",
            "mkdir -p /run/systemd/system/docker.service.d; printf '[Service]\\nExecStart=\\n"
            f"ExecStart=/usr/sbin/dockerd {_OPEN}\\n'"
            " >/run/systemd/system/docker.service.d/open.conf;"
            " systemctl daemon-reload; systemctl restart docker",
            "/run/systemd/system/docker.service.d/open.conf changes docker.service",
        ),
        (
            "docker-api-opened-by-its-environment",
            "echo 'DOCKER_OPTS=\"-H tcp://0.0.0.0:2375\"' >>/etc/default/docker;"
            " systemctl restart docker",
            "/etc/default/docker sets DOCKER_OPTS for docker.service",
        ),
        (
            "docker-api-opened-by-another-unit-file",
            "sed 's|-H fd://|& -H tcp://0.0.0.0:2375|' /usr/lib/systemd/system/docker.service"
            " >/etc/systemd/system/docker.service; systemctl daemon-reload;"
            " systemctl restart docker",
            "/etc/systemd/system/docker.service hides the packaged docker.service",
        ),
        (
            "docker-api-opened-by-a-drop-in-and-its-settings",
            "mkdir -p /etc/systemd/system/docker.service.d; printf '[Service]\\nExecStart=\\n"
            "ExecStart=/usr/sbin/dockerd\\n' >/etc/systemd/system/docker.service.d/open.conf;"
            ' sed -i \'1s|{|{"hosts": ["fd://", "tcp://0.0.0.0:2375"],|\''
            " /etc/docker/daemon.json; systemctl daemon-reload; systemctl restart docker",
            "/etc/docker/daemon.json differs in hosts",
        ),
        (
            "docker-socket-world-writable",
            "mkdir -p /etc/systemd/system/docker.socket.d; printf '[Socket]\\nSocketMode=0666\\n'"
            " >/etc/systemd/system/docker.socket.d/mode.conf; systemctl daemon-reload;"
            " systemctl restart docker.socket docker.service",
            "docker.socket.d/mode.conf changes docker.socket: it sets SocketMode",
        ),
        (
            "docker-socket-opened-at-run-time",
            "chmod 0666 /run/docker.sock",
            "/run/docker.sock has mode 0666",
        ),
    ),
    *drifts(
        "Docker",
        "system.no-unit-has-undeclared-overrides",
        (
            "containerd-changed-by-systemctl",
            "systemctl set-property containerd.service MemoryMax=64G",
            "50-MemoryMax.conf changes containerd.service: it sets MemoryMax",
        ),
    ),
    *drifts(
        "Docker",
        "docker.pinned-version-is-installed-and-held",
        ("docker-unheld", "apt-mark unhold docker.io docker-cli", "docker.io is not held"),
        (
            "docker-version-changed",
            OTHER_VERSION.format(name="docker-cli"),
            "docker-cli is 999, not",
        ),
    ),
    *drifts(
        "Docker",
        "docker.compose-and-buildx-are-installed",
        (
            "buildx-removed",
            "apt-get -y -qq remove --allow-change-held-packages docker-buildx",
            "docker-buildx is not installed",
        ),
    ),
    *drifts(
        "Docker",
        "system.all-packages-are-fully-installed",
        (
            "compose-half-configured",
            "sed -i '/^Package: docker-compose$/,/^Status/s/^Status.*/Status: hold ok"
            " half-configured/' /var/lib/dpkg/status",
            "docker-compose is half-configured",
        ),
    ),
    *drifts(
        "Docker",
        "docker.every-declared-key-is-in-the-file",
        (
            "docker-key-removed",
            "sed -i '/live-restore/d' /etc/docker/daemon.json",
            "daemon.json differs in live-restore",
        ),
        (
            "docker-key-changed",
            'sed -i \'s/"50m"/"5000m"/\' /etc/docker/daemon.json',
            "daemon.json differs in log-opts",
        ),
        (
            "docker-settings-deleted",
            "rm /etc/docker/daemon.json",
            "/etc/docker/daemon.json differs in",
        ),
        ("docker-settings-writable", "chmod 0666 /etc/docker/daemon.json", "has mode 0666"),
        (
            "docker-record-of-settings-deleted",
            "rm /var/lib/llmhost/docker/docker.json",
            "/var/lib/llmhost/docker/docker.json is missing",
        ),
    ),
    *drifts(
        "Docker",
        "docker.daemon-was-started-after-its-configuration-changed",
        (
            "docker-runs-with-old-settings",
            "touch /etc/docker/daemon.json",
            "docker.service runs with an older configuration than the one on disk",
        ),
        (
            "docker-unit-not-reloaded",
            "mkdir -p /etc/systemd/system/docker.service.d; printf '[Service]\\nNice=1\\n'"
            " >/etc/systemd/system/docker.service.d/nice.conf",
            "systemd has loaded an older docker.service than the one on disk",
        ),
    ),
    *drifts(
        "Docker",
        "docker.engine-runs-now-and-at-boot",
        (
            "docker-stopped",
            "systemctl stop docker.socket docker.service",
            "docker.service is inactive",
        ),
        (
            "docker-disabled",
            "systemctl disable docker.service",
            "docker.service does not start at boot",
        ),
        (
            "docker-hangs",
            "kill -STOP $(systemctl show -P MainPID docker.service)",
            "docker.service does not answer",
        ),
        ("docker-masked", "systemctl mask docker.service", "docker.service is masked"),
        ("docker-socket-masked", "systemctl mask docker.socket", "docker.socket is masked"),
        (
            "docker-masked-until-boot-and-stopped",
            "systemctl mask --runtime docker.service docker.socket;"
            " systemctl stop docker.socket docker.service",
            "docker.service is masked",
        ),
        (
            "docker-socket-disabled",
            "systemctl disable docker.socket",
            "docker.socket does not start at boot",
        ),
        (
            "containerd-stopped",
            "systemctl stop containerd.service",
            "containerd.service is inactive",
        ),
        ("containerd-masked", "systemctl mask containerd.service", "containerd.service is masked"),
    ),
    *drifts(
        "Docker",
        "docker.daemon-is-hardened",
        (
            "docker-hardening-removed",
            'sed -i \'/no-new-privileges/d; s/"userland-proxy": false/"userland-proxy": true/\''
            " /etc/docker/daemon.json; sed -i -z 's/,\\n}/\\n}/' /etc/docker/daemon.json",
            "differs in no-new-privileges",
        ),
    ),
    *drifts(
        "Docker",
        "firewall.docker-starts-with-the-rules-of-ufw-first",
        (
            "docker-starts-ahead-of-the-firewall",
            "rm /etc/systemd/system/docker.service.d/50-llmhost-firewall.conf; systemctl"
            " daemon-reload; systemctl restart docker",
            "50-llmhost-firewall.conf is missing",
        ),
    ),
)
