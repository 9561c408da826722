"""Overrides of units: the script on a tree of files, and which of them are foreign."""

import base64
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from llmhost.resources import script
from llmhost.system.overrides import OWN, Override, parse_overrides

OPEN = "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H tcp://0.0.0.0:2375\n"
PLACE = "/etc/systemd/system/docker.service.d/open.conf"


def override(content: str, kind: str = "drop-in", packaged: bool = False) -> Override:
    path = "/etc/default/docker" if kind == "environment" else PLACE
    return Override("docker.service", kind, path, packaged, content)


def lines(*overrides: Override, outdated: str = "no") -> list[str]:
    told = [f"unit docker.service {outdated}"]
    for each in overrides:
        told.append(f"{each.kind} {'yes' if each.packaged else 'no'} {each.path}")
        told.append(base64.b64encode(each.content.encode()).decode())
    return told


def foreign(*overrides: Override, known: tuple[str, ...] = ()) -> list[str]:
    return [each.sentence for each in parse_overrides(lines(*overrides)).foreign(known)]


def test_drop_in_is_named_with_what_it_sets() -> None:
    assert foreign(override(OPEN)) == [f"{PLACE} changes docker.service: it sets ExecStart"]


def test_packaged_and_accepted_ones_stay() -> None:
    assert foreign(override(OPEN, packaged=True)) == []
    assert foreign(override(OPEN), known=(PLACE,)) == []


def test_drop_ins_of_lxc_and_of_llmhost_stay() -> None:
    for path in ("/run/systemd/system/docker.service.d/zzz-lxc-service.conf", *OWN):
        assert foreign(replace(override(OPEN), path=path)) == []
    elsewhere = "/etc/systemd/system/docker.service.d/zzz-lxc-service.conf"
    assert foreign(replace(override(OPEN), path=elsewhere))


@pytest.mark.parametrize(
    "content",
    [
        "[Service]\nEnvironment=HTTP_PROXY=http://proxy.example:3128\n",
        '[Service]\nEnvironment="HTTPS_PROXY=http://p.example" "NO_PROXY=localhost,.example"\n',
        "[Service]\nEnvironment=http_proxy=http://p.example \\\n  no_proxy=localhost\n",
        "# Nothing yet.\n[Service]\n",
    ],
)
def test_proxies_and_comments_change_nothing_that_is_declared(content: str) -> None:
    assert foreign(override(content)) == []


def test_proxy_does_not_hide_what_stands_beside_it() -> None:
    proxy = "[Service]\nEnvironment=HTTP_PROXY=http://proxy.example:3128\n"
    assert foreign(override(proxy + "ExecStart=/usr/sbin/dockerd -H tcp://0.0.0.0\n"))
    assert foreign(override(proxy + 'Environment="LD_PRELOAD=/tmp/x.so"\n'))
    assert foreign(override("[Service]\nEnvironment=HTTP_PROXY=x LD_PRELOAD=/tmp/x.so\n"))


def test_environment_file_is_named_by_its_variables() -> None:
    text = '# DOCKER_OPTS="--dns 192.0.2.1"\nDOCKER_OPTS="-H tcp://0.0.0.0:2375"\nHTTP_PROXY=x\n'
    assert foreign(override(text, "environment")) == [
        "/etc/default/docker sets DOCKER_OPTS for docker.service"
    ]
    assert foreign(override("SSHD_OPTS=\n", "environment")) == []


def test_unit_file_that_hides_the_packaged_one_is_foreign_even_if_it_is_empty() -> None:
    assert foreign(override("", "unit-file")) == [f"{PLACE} hides the packaged docker.service"]


def test_systemd_that_does_not_answer_is_no_sign_of_no_overrides(tmp_path: Path) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\necho 'Failed to connect to bus' >&2; exit 1\n")
    systemctl.chmod(0o755)
    output = subprocess.run(
        ["sh", "-c", script("system/overrides.sh", "docker.service")],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert parse_overrides(output.splitlines()).unknown == {
        "docker.service": "the overrides of docker.service could not be read: Failed to connect"
        " to bus"
    }


def test_each_operation_gets_what_concerns_its_units() -> None:
    both = parse_overrides(
        [
            *lines(override("[Service]\nNice=1\n"), outdated="yes"),
            "failed a.service no answer",
            "failed b.service no answer",
        ]
    )
    own, others = both.of(["docker.service", "b.service"]), both.of(["a.service"])
    assert own.files == both.files != () and own.outdated == ("docker.service",)
    assert {*own.unknown} == {"b.service"}
    assert (others.files, others.outdated, {*others.unknown}) == ((), (), {"a.service"})


def test_outdated_units_are_listed() -> None:
    assert parse_overrides(lines(outdated="yes")).outdated == ("docker.service",)
    assert parse_overrides(lines()).outdated == ()
