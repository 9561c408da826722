"""From a vendor's repository into a bundle and out of it: real apt and gpg, a double's packages.

Everything runs on this machine, in directories of the test's own.
"""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest

from llmhost.bundle.manifest import DIRECTORY, BundleError, Part, Release
from llmhost.bundle.packages import SCRATCH, apt_files
from llmhost.bundle.parts import Parts
from llmhost.cli.bundle_packages import gather_packages
from llmhost.cli.remote import Remote
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site import SiteHost
from tests.doubles.apt_repository import DebDouble, build_repository, serving

PACKAGES = [
    DebDouble("docker-ce", "5:29.10.0-1~debian.13~trixie", fields={"Depends": "containerd.io"}),
    DebDouble("containerd.io", "2.1.0-1", fields={"Depends": "base-double (>= 2)"}),
    DebDouble("base-double", "2", fields={"Priority": "required"}),
    DebDouble("unwanted", "1"),
]


@dataclass(frozen=True)
class Here(Remote):
    """This machine, with other directories in place of the builder's."""

    place: Path

    def run(self, script: str, given: bytes = b"") -> str:
        return super().run(self._local(script), given)

    def save(self, script: str, file: BinaryIO, given: bytes = b"") -> None:
        super().save(self._local(script), file, given)

    def _local(self, script: str) -> str:
        own = script.replace("/etc/apt/sources.list.d/", f"{self.place}/none/")
        return own.replace(SCRATCH, f"{self.place}/scratch")


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    (tmp_path / "archives/partial").mkdir(parents=True)
    (tmp_path / "apt.conf").write_text(
        'Dir::Etc::sourcelist "/dev/null";\nAPT::Sandbox::User "root";\n'
        f'Dir::Cache::archives "{tmp_path}/archives";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return Here("builder", ("sh", "-c"), tmp_path)


@dataclass(frozen=True)
class Vendor:
    """Docker's repository as an inventory names it."""

    target: SiteHost

    def gather(self, builder: Here, *names: str) -> dict[str, Part]:
        release = Release("debian", "13", "amd64")
        parts = Parts(builder.place / "parts")
        found = gather_packages([self.target], names, builder, release, "trixie", parts)
        return {part.path: part for part in found}


@pytest.fixture
def vendor(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Vendor]:
    top = tmp_path / "vendor"
    repository = build_repository(top / "debian", PACKAGES, suite="trixie")
    with serving(top, "127.0.0.1") as url:
        data = {
            "docker_source": "docker",
            "docker_repository_url": url,
            "docker_repository_key_fingerprint": getattr(request, "param", repository.fingerprint),
            "api_clients": [{"name": "test", "sha256": "ab" * 32}],
        }
        yield Vendor(SiteHost("llm-server", read_settings(data)))


def test_packages_come_with_their_dependencies_and_can_be_installed(
    builder: Here, vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered = vendor.gather(builder, "docker-ce")
    assert {path for path in gathered if path.endswith(".deb")} == {
        "packages/pool/docker-ce_29.10.0-1~debian.13~trixie_all.deb",
        "packages/pool/containerd.io_2.1.0-1_all.deb",
        "packages/pool/base-double_2_all.deb",
    }
    assert "keys/docker.gpg" in gathered and "packages/InRelease" in gathered
    _bring(tmp_path)
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "host/apt.conf"))
    assert _apt(tmp_path, "update").returncode == 0
    into = ["-o", f"Dir::Cache::archives={tmp_path}/fresh", "--download-only", "install"]
    installed = _apt(tmp_path, *into, "docker-ce=5:29.10.0-1~debian.13~trixie")
    assert installed.returncode == 0, installed.stderr
    other = _apt(tmp_path, *into, "unwanted")
    assert "Unable to locate package unwanted" in other.stderr


def test_changed_index_is_refused_by_apt(
    builder: Here, vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor.gather(builder, "docker-ce")
    _bring(tmp_path)
    index = tmp_path / "host/packages/InRelease"
    index.write_text(index.read_text().replace("Label: llmhost bundle", "Label: other"))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "host/apt.conf"))
    updated = _apt(tmp_path, "update")
    assert "BADSIG" in updated.stderr + updated.stdout or updated.returncode, updated.stderr
    into = ["-o", f"Dir::Cache::archives={tmp_path}/fresh", "--download-only", "install"]
    assert _apt(tmp_path, *into, "docker-ce").returncode != 0


def test_same_packages_are_neither_fetched_nor_signed_again(
    builder: Here, vendor: Vendor, capsys: pytest.CaptureFixture[str]
) -> None:
    first = vendor.gather(builder, "docker-ce")
    assert "fetching 3 packages" in capsys.readouterr().out
    assert vendor.gather(builder, "docker-ce") == first
    assert "fetching" not in capsys.readouterr().out


def test_package_that_is_damaged_in_the_builders_cache_is_refused(
    builder: Here, vendor: Vendor
) -> None:
    vendor.gather(builder, "base-double")
    (deb,) = (builder.place / "archives").glob("base-double_*.deb")
    # Of the same size: apt would not look closer.
    deb.write_bytes(b"?" * deb.stat().st_size)
    (builder.place / "parts/parts.json").unlink()
    with pytest.raises(BundleError, match=r"base-double_2_all\.deb on builder does not match its"):
        vendor.gather(builder, "base-double")


@pytest.mark.parametrize("vendor", ["AB" * 20], indirect=True)
def test_repository_with_another_key_is_refused(builder: Here, vendor: Vendor) -> None:
    with pytest.raises(BundleError, match=f"/debian/gpg has the fingerprint .*, not {'AB' * 20}"):
        vendor.gather(builder, "docker-ce")


def _bring(place: Path) -> None:
    """Lay the repository out as it is on a host, in another directory."""
    for path, text in apt_files().items():
        file = Path(path.replace(DIRECTORY, f"{place}/host"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace(DIRECTORY, f"{place}/host"))
    (place / "parts/packages").rename(place / "host/packages")
    for directory in ("host/lists/partial", "fresh/partial"):
        (place / directory).mkdir(parents=True)
    (place / "status").touch()


def _apt(place: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """apt-get on a host where nothing is installed."""
    options = ["-o", f"Dir::State::status={place}/status", "-o", "Dir::Cache::pkgcache="]
    options += ["-o", "Dir::Cache::srcpkgcache=", "-y", "-q"]
    return subprocess.run(["apt-get", *options, *arguments], capture_output=True, text=True)
