"""Packages planned against dpkg's database, and repositories with their keys."""

import base64
import os
import subprocess
from pathlib import Path

import pytest

from llmhost.docker.packages import (
    ALL_NAMES,
    docker_repository,
    engine_packages,
    unsupported,
)
from llmhost.facts.apt import InstalledPackages, RepositoryFiles, RepositoryState, parse_database
from llmhost.operations import apt
from llmhost.operations.apt import repository_commands, repository_differences
from llmhost.options.docker import DOCKER_KEY
from llmhost.resources import script_text
from llmhost.system.apt import AptPackage, AptPlan, PackageDatabase, plan, script
from llmhost.system.apt_repository import Repository
from llmhost.system.apt_sources import Listed, parse_sources
from llmhost.system.openpgp import UnreadableKey, dearmored, fingerprint

VENDORED = Path(__file__).resolve().parents[2] / "files/docker/docker.asc"

INSTALLED = AptPackage("1.0", "installed")
HELD = AptPackage("1.0", "installed", held=True)


def database(**packages: AptPackage) -> PackageDatabase:
    return PackageDatabase(packages)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (database(), AptPlan(install=("a",), reasons=("a is not installed",))),
        (database(a=INSTALLED), AptPlan()),
        (
            database(a=AptPackage("1.0", "config-files")),
            AptPlan(install=("a",), reasons=("a is not installed",)),
        ),
        (
            PackageDatabase({"a": AptPackage("1.0", "half-configured")}, ("a",)),
            AptPlan(install=("a",), repair=True, reasons=("a is half-configured",)),
        ),
        # Another's broken package is no reason to act, but a reason to repair when there is one.
        (
            PackageDatabase({"a": INSTALLED, "b": AptPackage("1", "unpacked")}, ("b",)),
            AptPlan(),
        ),
        (
            PackageDatabase({"b": AptPackage("1", "unpacked")}, ("b",)),
            AptPlan(install=("a",), repair=True, reasons=("a is not installed",)),
        ),
        (
            PackageDatabase({"a": INSTALLED}, journal=True),
            AptPlan(repair=True, reasons=("dpkg was interrupted",)),
        ),
        # An operator's hold outlives a repair of the package.
        (
            database(a=AptPackage("1.0", "config-files", held=True)),
            AptPlan(install=("a",), unhold=("a",), hold=("a",), reasons=("a is not installed",)),
        ),
    ],
)
def test_package_that_is_missing_is_installed(found: PackageDatabase, expected: AptPlan) -> None:
    assert plan(["a"], {}, [], None, found) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (HELD, AptPlan()),
        (INSTALLED, AptPlan(hold=("a",), reasons=("a is not held",))),
        (
            AptPackage("2.0", "installed", held=True),
            AptPlan(install=("a=1.0",), unhold=("a",), hold=("a",), reasons=("a is 2.0, not 1.0",)),
        ),
    ],
)
def test_pinned_package_has_its_version_and_is_held(found: AptPackage, expected: AptPlan) -> None:
    assert plan(["a"], {"a": "1.0"}, [], True, database(a=found)) == expected


def test_hold_is_lifted_when_nothing_is_pinned_any_more() -> None:
    found = plan(["a"], {}, [], False, database(a=HELD))
    assert (found.unhold, found.install, found.hold) == (("a",), (), ())


@pytest.mark.parametrize("status", ["installed", "half-configured"])
def test_unwanted_package_is_removed_even_if_held(status: str) -> None:
    found = plan([], {}, ["b"], None, database(b=AptPackage("1", status, held=True)))
    assert (found.remove, found.unhold) == (("b",), ("b",))


def test_package_that_left_only_its_configuration_is_not_removed_again() -> None:
    assert plan([], {}, ["b"], None, database(b=AptPackage("1", "config-files"))) == AptPlan()


def test_replacement_is_one_transaction_and_names_what_may_go() -> None:
    text = script(AptPlan(install=("docker-ce=5:29",), remove=("docker.io", "runc")))
    assert text.rstrip().endswith("transact --allow-downgrades docker-ce=5:29 docker.io- runc-")
    assert "removable='docker.io runc'" in text


def test_downgrade_is_allowed_for_pinned_versions_only() -> None:
    assert "--allow-downgrades" not in script(AptPlan(install=("a",)))


def test_hostile_package_name_stays_one_word() -> None:
    assert "transact 'a; reboot'" in script(AptPlan(install=("a; reboot",)))


def test_database_is_read_from_dpkg() -> None:
    lines = ["a|1.0|install|installed", "b|5:2-1|hold|unpacked", "journal 0001"]
    assert parse_database(lines) == PackageDatabase(
        {"a": INSTALLED, "b": AptPackage("5:2-1", "unpacked", held=True)}, ("b",), journal=True
    )


def test_a_library_of_another_architecture_is_not_that_of_the_host(tmp_path: Path) -> None:
    said = (
        "a|1.0|hold|installed|amd64\\na|1.0|install|installed|i386\\nb|2|install|installed|all"
        "\\nc|3|install|unpacked|i386\\nd||hold|not-installed|\\ne|1|install|installed|amd64"
    )
    for name, answer in (("dpkg-query", said), ("dpkg", "amd64"), ("ls", "")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\nprintf '{answer}\\n'\n")
        program.chmod(0o755)
    fact = InstalledPackages()
    command = ["sh", "-c", fact.command(["a", "b", "d"])]
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=path)
    found = fact.process(done.stdout.splitlines())
    held = {name: package.held for name, package in found.packages.items()}
    assert held == {"a": True, "b": False, "c": False, "d": True}
    assert found.unfinished == ("c",)


def test_vendored_key_is_the_pinned_one() -> None:
    assert fingerprint(VENDORED.read_bytes()) == DOCKER_KEY


def test_key_is_the_same_armoured_or_not() -> None:
    armoured = VENDORED.read_bytes()
    assert fingerprint(dearmored(armoured)) == fingerprint(armoured)
    assert dearmored(armoured.replace(b"\n", b"\r\n")) == dearmored(armoured)


def test_second_key_beside_the_right_one_is_refused() -> None:
    with pytest.raises(UnreadableKey, match="2 keys"):
        fingerprint(dearmored(VENDORED.read_bytes()) * 2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>not found</html>",
        VENDORED.read_bytes()[:900],
        dearmored(VENDORED.read_bytes())[:900],
        base64.b64encode(b"hello"),
    ],
)
def test_what_is_no_key_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableKey):
        fingerprint(data)


def test_repository_trusts_its_own_key_only() -> None:
    repository = Repository("x", "https://e.invalid/deb", "trixie", ("main",), "A" * 40, "")
    assert repository.sources.splitlines()[1:] == [
        "Types: deb",
        "URIs: https://e.invalid/deb",
        "Suites: trixie",
        "Components: main",
        "Signed-By: /etc/apt/keyrings/x.gpg",
    ]


def test_flat_repository_has_no_components() -> None:
    repository = Repository("x", "https://e.invalid/deb", "/", (), "A" * 40, "")
    assert "Suites: /" in repository.sources and "Components" not in repository.sources


def test_docker_repository_is_that_of_the_distribution() -> None:
    repository = docker_repository("https://e.invalid/linux/", "A" * 40, None, "debian", "trixie")
    assert repository.uri == "https://e.invalid/linux/debian"
    assert repository.key_url == "https://e.invalid/linux/debian/gpg"


SOURCE = Repository("x", "https://e.invalid/deb", "trixie", ("main",), "A" * 40, "")
FLAT = Repository("x", "https://e.invalid/deb/amd64/", "/", (), "A" * 40, "")
ARCHIVE = "deb http://deb.example/debian trixie main"


def listed(*lines: str, path: str = "/etc/apt/sources.list.d/zz.list") -> tuple[Listed, ...]:
    return parse_sources(f"source {path}:{number}:{line}" for number, line in enumerate(lines, 1))


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        (SOURCE, ["deb https://e.invalid/deb/ trixie main"]),
        (SOURCE, ["deb [arch=amd64 signed-by=/x.asc] https://e.invalid/deb trixie stable"]),
        (
            SOURCE,
            ["deb https://e.invalid/deb trixie main", "", "deb-src https://e.invalid/deb trixie x"],
        ),
        (FLAT, ["deb [signed-by=/x.gpg] https://e.invalid/deb/$(ARCH) /"]),
    ],
)
def test_file_with_only_this_source_is_replaced(source: Repository, lines: list[str]) -> None:
    found = listed(*lines)
    assert source.superseded(found) == ("/etc/apt/sources.list.d/zz.list",)
    assert source.clashes(found) == ()


@pytest.mark.parametrize(
    "lines",
    [
        [ARCHIVE],
        ["deb https://e.invalid/deb bookworm main"],  # a suite has one key
        ["deb https://e.invalid/deb/other trixie main"],
        ["deb [signed-by=/etc/apt/keyrings/x.gpg] https://e.invalid/deb trixie main"],
    ],
)
def test_other_sources_stay(lines: list[str]) -> None:
    assert SOURCE.superseded(listed(*lines)) == () == SOURCE.clashes(listed(*lines))


def test_file_with_other_sources_is_refused_with_the_line() -> None:
    line = "deb [signed-by=/x.asc] https://e.invalid/deb trixie main"
    found = listed(ARCHIVE, line, path="/etc/apt/sources.list")
    assert SOURCE.superseded(found) == ()
    (sentence,) = SOURCE.clashes(found)
    assert sentence.startswith(
        "/etc/apt/sources.list, line 2, has the source https://e.invalid/deb"
    )


def test_source_without_a_key_before_ours_is_left_alone() -> None:
    """apt 2.6 accepts it: the source then has our key."""
    for path in ("/etc/apt/sources.list", "/etc/apt/sources.list.d/a.list"):
        found = listed(ARCHIVE, "deb https://e.invalid/deb trixie main", path=path)
        assert SOURCE.superseded(found) == () == SOURCE.clashes(found)


def test_file_whose_name_apt_ignores_is_none() -> None:
    for name in ("ppa:foo.list", "zz old.list"):
        path = f"/etc/apt/sources.list.d/{name}"
        assert listed("deb https://e.invalid/deb trixie main", path=path) == ()


def test_file_with_a_disabled_stanza_of_others_is_not_removed() -> None:
    path = "/etc/apt/sources.list.d/zz.sources"
    other = ["Types: deb", "URIs: http://deb.example", "Suites: trixie", "Enabled: no"]
    found = listed(*STANZA, "", *other, path=path)
    assert SOURCE.superseded(found) == () and len(SOURCE.clashes(found)) == 1


STANZA = ["Types: deb", "URIs:", " https://e.invalid/deb", "Suites: trixie", "Signed-By:", " key"]


def test_stanzas_are_read_like_lines() -> None:
    path = "/etc/apt/sources.list.d/zz.sources"
    assert SOURCE.superseded(listed(*STANZA, path=path)) == (path,)
    assert SOURCE.superseded(listed("Enabled: no", *STANZA, path=path)) == ()
    both = listed("URIs: http://deb.example", "Suites: trixie", "", *STANZA, path=path)
    assert [f"{path}, line 5," in each for each in SOURCE.clashes(both)] == [True]
    two = [*STANZA[:3], " http://deb.example", *STANZA[3:]]
    assert len(SOURCE.clashes(listed(*two, path=path))) == 1


def test_files_of_the_repository_itself_are_compared_elsewhere() -> None:
    found = listed(*STANZA, path=SOURCE.sources_path)
    assert SOURCE.superseded(found) == () == SOURCE.clashes(found)


def test_source_in_another_file_is_a_difference() -> None:
    key = VENDORED.read_bytes()
    source = Repository("x", "https://e.invalid/deb", "trixie", ("main",), DOCKER_KEY, "")
    here = listed("deb https://e.invalid/deb trixie main")
    first = set(repository_differences(source, RepositoryState({}, dearmored(key)), present=True))
    state = RepositoryState({}, dearmored(key), here)
    more = set(repository_differences(source, state, present=True)) - first
    assert more == {"/etc/apt/sources.list.d/zz.list has the source of x too"}
    assert repository_differences(source, state, present=False) == []


def test_other_file_is_kept_and_removed_once_ours_is_there() -> None:
    source = Repository("x", "https://e.invalid/deb", "trixie", (), DOCKER_KEY, "")
    here = listed("deb https://e.invalid/deb trixie main")
    state = RepositoryState({}, dearmored(VENDORED.read_bytes()), here)
    _, keep, write = map(str, repository_commands(source, state, present=True))
    path = "/etc/apt/sources.list.d/zz.list"
    assert f"cp -p --parents {path} /var/lib/llmhost/overrides" in keep
    assert write.index(source.sources_path) < write.index(f"rm -f {path}")


def test_clash_is_refused_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Repository("x", "https://e.invalid/deb", "trixie", (), DOCKER_KEY, "")
    here = listed(ARCHIVE, "deb https://e.invalid/deb trixie main")
    state = RepositoryState({}, dearmored(VENDORED.read_bytes()), here)
    monkeypatch.setattr(apt, "refuse", list)
    (refused,) = repository_commands(source, state, present=True)
    assert "zz.list, line 2, has the source" in str(refused)


def test_sources_of_a_host_are_read_without_comments(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/a.list").write_text(f"# {ARCHIVE}\n\n{ARCHIVE}\n")
    (tmp_path / "sources.list.d/b.sources").write_text("\n".join(STANZA))
    (tmp_path / "sources.list.d/c.list.save").write_text(ARCHIVE)
    text = script_text("apt/sources.sh").replace("/etc/apt", str(tmp_path))
    ran = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    told = ran.stdout.replace(str(tmp_path), "/etc/apt").splitlines()
    found = RepositoryFiles().process(["key ", *told]).listed
    assert [(Path(each.path).name, each.line) for each in found] == [
        ("a.list", 3),
        ("b.sources", 2),
    ]


@pytest.mark.parametrize("source", ["distribution", "docker"])
@pytest.mark.parametrize(
    "host", [("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04"), ("ubuntu", "26.04")]
)
def test_every_supported_host_gets_engine_compose_and_buildx(
    source: str, host: tuple[str, str]
) -> None:
    packages = engine_packages(source, *host)
    assert packages is not None and unsupported(source, *host) == ""
    assert not set(packages.wanted) & set(packages.conflicting)
    assert {*packages.wanted, *packages.conflicting} <= set(ALL_NAMES)
    for part in ("compose", "buildx"):
        assert any(part in name for name in packages.wanted)


def test_debian_12_is_sent_to_dockers_own_packages() -> None:
    assert engine_packages("distribution", "debian", "12") is None
    assert 'docker_source = "docker"' in unsupported("distribution", "debian", "12")
    assert engine_packages("docker", "debian", "12") is not None


def test_other_distributions_are_refused() -> None:
    assert "fedora 41" in unsupported("docker", "fedora", "41")
