"""Overrides of units: the script on a tree of files, and which of them are foreign."""

import base64
import hashlib
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from llmhost.operations import systemd
from llmhost.resources import script, script_text
from llmhost.system.overrides import OWN, Override, Overrides, parse_overrides

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


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A host with docker.service of docker.io, and doubles of systemctl and dpkg-query."""
    for name, text in (
        ("systemctl", 'shift 7; for n; do printf "Names=$n\\nNeedDaemonReload=no\\n\\n"; done'),
        ("dpkg-query", 'grep -qxF -- "$2" "$PLACE/owned" 2>/dev/null'),
    ):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    write(tmp_path / "usr/lib/systemd/system/docker.service", OPEN)
    digest = hashlib.md5(OPEN.encode(), usedforsecurity=False).hexdigest()
    path = f"{str(tmp_path)[1:]}/usr/lib/systemd/system/docker.service"
    write(tmp_path / "var/lib/dpkg/info/docker.io.md5sums", f"{digest}  {path}\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(tree: Path, *units: str) -> Overrides:
    text = script_text("system/overrides.sh").replace("/usr/lib/systemd/system", "@VENDOR@")
    for place in ("/etc/systemd", "/run/systemd", "/usr/local/lib", "/var/lib/dpkg"):
        text = text.replace(place, f"{tree}{place}")
    text = text.replace("@VENDOR@", f"{tree}/usr/lib/systemd/system")
    environment = {"PATH": f"{tree}/bin:{os.environ['PATH']}", "PLACE": str(tree)}
    command = ["sh", "-c", text, "overrides.sh", *(units or ("docker.service",))]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return parse_overrides(ran.stdout.splitlines())


def test_packaged_unit_file_that_was_edited_is_named_with_its_package(tree: Path) -> None:
    assert read(tree).foreign([]) == ()
    path = f"{tree}/usr/lib/systemd/system/docker.service"
    Path(path).write_text(OPEN + "Nice=5\n")
    (found,) = read(tree).foreign([])
    assert found.sentence == f"{path} is not as the package docker.io has it"
    assert found.way_out == "restore it with: apt-get install --reinstall docker.io"
    assert read(tree).foreign([path]) == ()


def test_file_that_another_package_replaced_is_not_edited(tree: Path) -> None:
    path = tree / "usr/lib/systemd/system/docker.service"
    path.write_text("[Unit]\n")
    digest = hashlib.md5(b"[Unit]\n", usedforsecurity=False).hexdigest()
    write(tree / "var/lib/dpkg/info/other:amd64.md5sums", f"{digest}  {str(path)[1:]}\n")
    assert read(tree).foreign([]) == ()


def test_unpackaged_drop_in_beside_the_packaged_unit_is_found(tree: Path) -> None:
    path = tree / "usr/lib/systemd/system/docker.service.d/open.conf"
    write(path, OPEN)
    assert [(each.kind, each.path) for each in read(tree).foreign([])] == [("drop-in", str(path))]
    write(tree / "owned", f"{path}\n")
    assert read(tree).foreign([]) == ()


def test_drop_in_of_units_whose_names_begin_alike_is_found(tree: Path) -> None:
    path = tree / "etc/systemd/system/nvidia-.service.d/all.conf"
    write(path, OPEN)
    write(tree / "etc/systemd/system/docker-.service.d/none.conf", OPEN)
    found = read(tree, "docker.service", "nvidia-cdi-refresh.service").foreign([])
    assert [(each.unit, each.kind, each.path) for each in found] == [
        ("nvidia-cdi-refresh.service", "shared", str(path))
    ]


@pytest.mark.parametrize(
    ("text", "correct", "is_refused"),
    [(f"{OPEN}# edited", True, True), (f"{OPEN}# edited", False, False), ("[Unit]", True, False)],
)
def test_edited_unit_file_is_refused_only_if_it_opens_docker(
    monkeypatch: pytest.MonkeyPatch, tree: Path, text: str, correct: bool, is_refused: bool
) -> None:
    """A host that worked must not be refused for a harmless edit."""
    (tree / "usr/lib/systemd/system/docker.service").write_text(text)
    told: list[str] = []
    monkeypatch.setattr(systemd, "get_fact", lambda *_, **__: read(tree))
    monkeypatch.setattr(systemd, "refuse", list)
    monkeypatch.setattr(systemd, "note", told.extend)
    body = systemd.without_overrides._inner  # type: ignore[attr-defined]
    refused = [*body("docker.service", correct=correct)]
    (sentence,) = refused[0] if refused else told
    assert bool(refused) is is_refused
    assert "apt-get install --reinstall docker.io, or list it in system_accepted" in sentence


def test_edited_file_is_restored_in_its_installed_version(tree: Path) -> None:
    write(tree / "bin/dpkg-query", "#!/bin/sh\n[ $1 = -W ] && echo 26.1.5\n")
    (tree / "usr/lib/systemd/system/docker.service").write_text("[Unit]")
    (found,) = read(tree).foreign([])
    assert found.way_out.endswith("--reinstall docker.io=26.1.5")
    assert found.sentence.endswith("is not as the package docker.io has it")


def test_example_of_a_unit_in_a_package_is_none(tree: Path) -> None:
    example = "usr/share/doc/x/systemd/system/docker.service"
    write(tree / "var/lib/dpkg/info/x.md5sums", f"{'0' * 32}  {str(tree)[1:]}/{example}\n")
    assert read(tree).foreign([]) == ()
