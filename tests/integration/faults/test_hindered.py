"""What hinders a run is waited for, healed or told; the next run converges."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.integration.drift.server import Server, converged_server

pytestmark = [pytest.mark.machines, pytest.mark.faults]

_APT = "/etc/apt/apt.conf.d"
_LOCK = (
    'python3 -c \'import fcntl, time; f = open("/var/lib/dpkg/lock-frontend", "w");'
    " fcntl.lockf(f, fcntl.LOCK_EX); time.sleep({seconds})'"
)
# Something to do in each part of a run.
_DRIFT = "rm /etc/logrotate.d/llmhost-gateway; docker rm -f llmhost-llamacpp-1"
_WITHOUT_MTAIL = "apt-get -qq -y remove mtail >/dev/null"


@dataclass(frozen=True)
class Fault:
    """`by_hand` is run before the deploy, `undo` after it. A run that shall stop says all of
    `said`; with none of it, it shall succeed. `intact` is what must hold after it."""

    id: str
    by_hand: str
    said: tuple[str, ...] = ()
    undo: str = "true"
    intact: str = "true"


FAULTS = (
    Fault(
        "ssh-cut-for-ten-seconds",
        # As soon as the run has locked the host.
        f"{_DRIFT}; touch /run/before; systemd-run -q sh -c 'until [ /run/llmhost/deploy.owner -nt"
        " /run/before ]; do sleep 0.1; done; nft add table inet cut;"
        ' nft add chain inet cut in "{ type filter hook input priority -300; }";'
        " nft add rule inet cut in tcp dport 22 drop; sleep 10; nft delete table inet cut'",
    ),
    Fault(
        "disk-full-while-a-file-is-written",
        f"mkdir -p /root/kept; cp -a {_APT}/. /root/kept/; mount -t tmpfs -o size=64k tmpfs {_APT};"
        f" cp -a /root/kept/. {_APT}/; rm {_APT}/zz-llmhost;"
        f" cat /dev/zero >{_APT}/full.ignored 2>/dev/null; true",
        ("No space left on device", "zz-llmhost"),
        f"umount {_APT}; rm -r /root/kept",
        f"[ ! -e {_APT}/zz-llmhost ]",
    ),
    Fault(
        "disk-full-while-apt-installs",
        f"{_WITHOUT_MTAIL}; mount -t tmpfs -o size=16k tmpfs /var/cache/apt/archives",
        ("You don't have enough free space in /var/cache/apt/archives",),
        "umount /var/cache/apt/archives",
    ),
    Fault(
        "disk-full-while-an-image-is-built",
        "systemctl stop docker.socket docker.service;"
        " mount -t tmpfs -o size=24m tmpfs /var/lib/docker; systemctl start docker.service",
        ("no space left on device", "df -h /var/lib/docker"),
        "systemctl stop docker.socket docker.service; umount /var/lib/docker",
    ),
    Fault(
        "apt-lock-held-for-a-while",
        f"{_WITHOUT_MTAIL}; systemd-run -q {_LOCK.format(seconds=10)}",
    ),
    Fault(
        "apt-lock-held-for-ever",
        f"{_WITHOUT_MTAIL}; systemd-run -q --unit=holder {_LOCK.format(seconds=600)}",
        ("Could not get lock /var/lib/dpkg/lock-frontend", "held by process"),
        "systemctl stop holder",
    ),
    Fault(
        "apt-mirror-down",
        f"{_WITHOUT_MTAIL}; mkdir /root/apt;"
        " mv /etc/apt/sources.list* /var/lib/apt/lists /root/apt/;"
        " mkdir /etc/apt/sources.list.d /var/lib/apt/lists; apt-get clean;"
        " echo 'deb http://127.0.0.1:9/debian trixie main' >/etc/apt/sources.list",
        ("127.0.0.1:9", "No package source of this host offers: mtail"),
        "rm -r /etc/apt/sources.list* /var/lib/apt/lists; mv /root/apt/lists /var/lib/apt/;"
        " mv /root/apt/* /etc/apt/; rmdir /root/apt",
    ),
    Fault("docker-down", "systemctl stop docker.socket docker.service containerd.service"),
    Fault("docker-hung", "kill -STOP $(systemctl show -P MainPID docker.service)"),
    Fault(
        "docker-does-not-start",
        "mkdir -p /run/systemd/system/docker.service.d; printf '[Service]\\nExecStart=\\n"
        "ExecStart=/bin/false\\n' >/run/systemd/system/docker.service.d/false.conf;"
        " systemctl daemon-reload; systemctl stop docker.socket docker.service",
        ("docker.service", "code=exited, status=1"),
        "rm -r /run/systemd/system/docker.service.d; systemctl daemon-reload",
    ),
    Fault(
        "docker-settings-broken",
        "cp -p /etc/docker/daemon.json /root/daemon.json; echo '{' >/etc/docker/daemon.json",
        ("/etc/docker/daemon.json is not valid JSON at line", "Fix the file, or move it away"),
        "cp -p /root/daemon.json /etc/docker/daemon.json",
        "docker ps | grep -q llmhost-llamacpp-1",
    ),
    Fault(
        "dpkg-interrupted",
        f"{_WITHOUT_MTAIL}; cd /tmp && apt-get -qq download mtail && dpkg --unpack ./mtail*.deb",
    ),
    Fault(
        "nginx-configuration-refused",
        "mv /usr/lib/nginx/modules/ngx_http_perl_module.so /root/; rm /etc/nginx/nginx.conf",
        ("ngx_http_perl_module.so",),
        "mv /root/ngx_http_perl_module.so /usr/lib/nginx/modules/",
        "systemctl is-active nginx && [ ! -e /etc/nginx/nginx.conf ]",
    ),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # So that builds run out of space, and not preflight.
    options = {"preflight_min_free_disk_gib": 0, "system_apt_lock_timeout_seconds": 15}
    home = tmp_path_factory.mktemp("hindered")
    with converged_server(home, "plain", **options) as server:
        yield server


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_fault_is_overcome_or_told_and_the_next_run_converges(server: Server, fault: Fault) -> None:
    server.machine.ssh(fault.by_hand)
    try:
        hindered = server.deploy()
        intact = server.machine.ssh(fault.intact, check=False).returncode == 0
    finally:
        server.machine.ssh(fault.undo)
    assert (hindered.returncode != 0) == bool(fault.said), hindered.stderr
    for sentence in fault.said:
        assert sentence in hindered.stderr, hindered.stderr
    assert "Traceback" not in hindered.stderr, hindered.stderr
    assert intact
    _converges(server)


def test_host_that_reboots_by_itself_is_healed_by_the_next_run(server: Server) -> None:
    machine = server.machine
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = machine.ssh(boot).stdout
    machine.ssh(f"{_DRIFT}; systemd-run -q --on-active=1 systemctl reboot --force")
    cut = server.deploy()
    assert "Traceback" not in cut.stderr, cut.stderr
    machine.wait_until_up(before.strip())
    assert machine.ssh(boot).stdout != before
    _converges(server)


def _converges(server: Server) -> None:
    deployed = server.deploy()
    assert deployed.returncode == 0, deployed.stderr
    status, told = server.plan()
    assert status == 0, told
