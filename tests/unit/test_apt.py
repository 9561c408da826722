"""Packages planned against dpkg's database, and repositories with their keys."""

import base64
from pathlib import Path

import pytest

from llmhost.docker.packages import (
    ALL_NAMES,
    docker_repository,
    engine_packages,
    unsupported,
)
from llmhost.facts.apt import parse_database
from llmhost.options.docker import DOCKER_KEY
from llmhost.system.apt import AptPackage, AptPlan, PackageDatabase, plan, script
from llmhost.system.apt_repository import Repository
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
