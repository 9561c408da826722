"""Rules of audit compared with what the kernel has loaded."""

import pytest

from llmhost.facts.audit import Audit
from llmhost.host_packages import hardening
from llmhost.inventory.reader import read_settings
from llmhost.system.audit import AuditState, render

FACT = """\
=== audit
available
installed
running
rule -w /etc/ssh/ -p wa -k llmhost-system
rule -w /etc/shadow -p wa -k llmhost-system
rule -a always,exit -S all -F dir=/etc/ufw/ -F perm=wa -F key=llmhost-system
exists /etc/ssh
exists /etc/shadow""".splitlines()


def test_fact_is_read() -> None:
    found = Audit().process(FACT)
    assert (found.available, found.installed, found.running) == (True, True, True)
    assert found.existing == {"/etc/ssh", "/etc/shadow"}
    assert found.loaded == {"/etc/ssh", "/etc/shadow", "/etc/ufw"}


def test_container_has_no_audit() -> None:
    assert Audit().process(["=== audit", "exists /etc/ssh"]) == AuditState(
        existing=frozenset({"/etc/ssh"})
    )


def test_rules_say_who_manages_them() -> None:
    text = render(["/etc/ssh"], "system")
    assert text.startswith("# Managed by llmhost")
    assert text.endswith("-w /etc/ssh -p wa -k llmhost-system\n")


@pytest.mark.parametrize(("level", "packages"), [("baseline", ()), ("cis", ("auditd",))])
def test_bundle_has_auditd_where_it_is_needed(level: str, packages: tuple[str, ...]) -> None:
    assert hardening(read_settings({"system_hardening": level})) == packages
