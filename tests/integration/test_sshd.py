"""sshd under real pyinfra: who can log in with a password, and a change that breaks log-in."""

import sys
from collections.abc import Iterator
from functools import partial

import pytest

from llmhost.operations import sshd
from llmhost.system.sshd import DROP_IN, Hardening
from testbed import Client, Lan, Machine
from tests.integration.harness import converge, deploy

pytestmark = pytest.mark.machines

HARDEN = "Harden sshd"
PASSWORD = "correct horse battery"
BY_PASSWORD = {"ssh_user": "guest", "ssh_password": PASSWORD, "_sudo": True}
GUEST = f"""
id guest 2>/dev/null || useradd -m -s /bin/bash guest
echo 'guest:{PASSWORD}' | chpasswd; echo 'root:{PASSWORD}' | chpasswd
echo 'guest ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/guest
"""
# As an installer or an image may leave it.
OPEN = "printf 'PermitRootLogin yes\\nPasswordAuthentication yes\\n' >"
# Keys are accepted only as long as no change is on trial.
TRAP = """
cat >/usr/local/bin/keys <<'E'
#!/bin/sh
[ -e /run/llmhost-sshd/pending ] || cat /root/.ssh/authorized_keys
E
chmod 0755 /usr/local/bin/keys
cat >/etc/ssh/sshd_config.d/70-trap.conf <<'E'
AuthorizedKeysFile none
AuthorizedKeysCommand /usr/local/bin/keys
AuthorizedKeysCommandUser root
E
systemctl reload ssh
"""
EXCEPTION = "printf 'Match User guest\\nPasswordAuthentication yes\\n'"
SECOND_FACTOR = "printf 'Match User guest\\nAuthenticationMethods publickey,password\\n'"
_LOGIN = """
import paramiko, sys
address, user, password = sys.argv[1:]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
try:
    client.connect(address, username=user, password=password, look_for_keys=False,
                   allow_agent=False, timeout=10)
except paramiko.AuthenticationException as error:
    print("refused")
else:
    print("admitted")
"""


def _harden(level: Hardening = "baseline", passwords: bool = False) -> None:
    sshd.settings(level, passwords=passwords, confirm_seconds=10, name=HARDEN)


@pytest.fixture(scope="module")
def client(lan: Lan) -> Client:
    return lan.client("ssh-client")


@pytest.fixture(scope="module")
def server(lan: Lan) -> Iterator[Machine]:
    """A machine of its own: the others' sshd stays as it is."""
    machine = lan.machine("sshd")
    machine.ssh(GUEST)
    yield machine
    machine.destroy()


@pytest.fixture
def host(server: Machine) -> Machine:
    """The server with passwords, as they are after an installation."""
    server.ssh(f"rm -f {DROP_IN}; {OPEN} /etc/ssh/sshd_config.d/50-cloud-init.conf")
    server.ssh("rm -f /etc/ssh/sshd_config.d/70-trap.conf; systemctl reload ssh; sleep 0.5")
    return server


def admits(client: Client, host: Machine, user: str) -> bool:
    said = client.run([sys.executable, "-c", _LOGIN, host.address, user, PASSWORD]).stdout
    assert said.strip() in ("admitted", "refused"), said
    return said.strip() == "admitted"


def test_password_login_ends_after_a_deploy_with_a_key(host: Machine, client: Client) -> None:
    assert admits(client, host, "guest") and admits(client, host, "root")
    assert converge(host, _harden).changed == [HARDEN]
    assert not admits(client, host, "guest") and not admits(client, host, "root")
    assert host.ssh("echo in").stdout == "in\n"
    assert not host.ssh("ls /run/llmhost-sshd", check=False).stdout


def test_password_login_stays_where_only_a_password_is_known(host: Machine, client: Client) -> None:
    outcome = deploy(host, _harden, login=BY_PASSWORD)
    assert outcome.succeeded and outcome.changed == [HARDEN], outcome.output
    assert "password login over SSH stays possible" in outcome.output
    assert admits(client, host, "guest")
    assert "x11forwarding no" in host.ssh("sshd -T").stdout
    again = deploy(host, _harden, login=BY_PASSWORD)
    assert again.succeeded and again.changed == [], again.output


def test_password_login_stays_where_it_is_declared(host: Machine, client: Client) -> None:
    converge(host, partial(_harden, passwords=True))
    assert admits(client, host, "guest")


def test_settings_with_which_nobody_can_log_in_are_undone(host: Machine, client: Client) -> None:
    host.ssh(TRAP)
    outcome = deploy(host, _harden)
    assert not outcome.succeeded
    assert "the host has undone the change" in outcome.output
    assert host.ssh(f"test ! -e {DROP_IN} && sshd -T | grep -c '^passwordauthentication yes'")
    assert admits(client, host, "guest")


def test_drift_is_found_and_corrected(host: Machine, client: Client) -> None:
    converge(host, partial(_harden, "cis"))
    host.ssh(f"sed -i 's/^PasswordAuthentication.*/PasswordAuthentication yes/' {DROP_IN}")
    host.ssh("systemctl reload ssh; sleep 0.5")
    assert admits(client, host, "guest")
    planned = deploy(host, _harden, "cis", dry=True)
    assert planned.changed == [HARDEN]
    assert converge(host, partial(_harden, "cis")).changed == [HARDEN]
    assert not admits(client, host, "guest")


def test_main_file_with_settings_of_its_own_first_includes_ours(
    host: Machine, client: Client
) -> None:
    main = "/etc/ssh/sshd_config"
    host.ssh(f"cp {main} /root/main; sed -i '/^Include/d; 1i PasswordAuthentication yes' {main}")
    host.ssh("systemctl reload ssh; sleep 0.5")
    try:
        converge(host, _harden)
        assert not admits(client, host, "guest")
    finally:
        host.ssh(f"cp /root/main {main}; systemctl reload ssh")


def test_drop_ins_are_included_in_another_form_and_one_has_an_exception(
    host: Machine, client: Client
) -> None:
    main = "/etc/ssh/sshd_config"
    host.ssh(f"cp {main} /root/main; sed -i 's#^Include.*#Include sshd_config.d/*#' {main}")
    host.ssh(f"{EXCEPTION} >/etc/ssh/sshd_config.d/70-trap.conf; systemctl reload ssh; sleep 0.5")
    try:
        outcome = converge(host, _harden)
        assert "Match User guest: PasswordAuthentication yes; sshd allows this" in outcome.output
        assert admits(client, host, "guest") and not admits(client, host, "root")
    finally:
        host.ssh(f"cp /root/main {main}; systemctl reload ssh")


def test_password_login_stays_where_it_is_a_second_factor(host: Machine, client: Client) -> None:
    host.ssh(f"{SECOND_FACTOR} >/etc/ssh/sshd_config.d/70-trap.conf; systemctl reload ssh")
    outcome = converge(host, _harden)
    assert "'AuthenticationMethods publickey,password' requires a password" in outcome.output
    assert admits(client, host, "root")


def test_changes_that_others_have_not_loaded_are_not_loaded(host: Machine, client: Client) -> None:
    host.ssh("echo 'AllowUsers nobody' >/etc/ssh/sshd_config.d/70-trap.conf")
    outcome = deploy(host, _harden)
    assert outcome.succeeded and outcome.changed == []
    assert "run `sshd -t && systemctl restart ssh`" in outcome.output
    assert host.ssh("echo in").stdout == "in\n"


def test_hardening_can_be_switched_off(host: Machine, client: Client) -> None:
    converge(host, _harden)
    assert converge(host, partial(_harden, "off")).changed == [HARDEN]
    assert admits(client, host, "guest")


def test_sshd_that_its_socket_starts(host: Machine, client: Client) -> None:
    """As on Ubuntu since 22.10, here with a second port. The last test: sessions keep the socket's
    port in use, so that ssh.service could not be started without it."""
    port = "[Socket]\nListenStream=2222\n"
    host.ssh("mkdir -p /etc/systemd/system/ssh.socket.d")
    host.ssh("cat >/etc/systemd/system/ssh.socket.d/port.conf", input=port)
    host.ssh("systemctl disable --now ssh.service; systemctl enable --now ssh.socket")
    converge(host, _harden)
    assert not admits(client, host, "guest") and not admits(client, host, "root")
    answers = "timeout 5 head -c 4 <>/dev/tcp/127.0.0.1/2222"
    assert host.ssh(f"bash -c '{answers}'").stdout == "SSH-"
