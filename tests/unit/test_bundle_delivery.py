"""A bundle is copied to several hosts at a time, and one that fails stops no other."""

from pathlib import Path

import pytest

from llmhost.bundle.file import Bundle, verified_bundle, write_bundle
from llmhost.bundle.host import HostState
from llmhost.bundle.key import signing_key
from llmhost.bundle.manifest import Manifest, Release
from llmhost.bundle.parts import Parts
from llmhost.cli.bundle_apply import Delivery, deliver_all
from llmhost.cli.remote import Remote
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site import SiteHost
from llmhost.inventory.site_reader import no_rules

RELEASE = Release("debian", "13", "amd64")
# Larger than what is read at once, so that the hosts' copies take turns.
IMAGE = b"".join(bytes([number]) * 1000 for number in range(250)) * 20


@pytest.fixture
def bundle_file(tmp_path: Path) -> Path:
    parts = Parts(tmp_path / "parts")
    packages = [parts.keep(f"packages/{each}.deb", b"package" * 100) for each in range(100)]
    whole = (*packages, parts.keep("images/a.tar", IMAGE))
    manifest = Manifest("now", {}, RELEASE, "", {}, (), {}, whole)
    key = signing_key(tmp_path / "keys")
    write_bundle(tmp_path / "site.bundle", manifest, tmp_path / "parts", key)
    return tmp_path / "site.bundle"


def delivery(bundle: Bundle, name: str, script: str, **data: object) -> Delivery:
    """To a host that runs this script instead of each one that it gets."""
    host = Remote(name, ("sh", "-c", script))
    target = SiteHost(name, read_settings(data, no_rules, name))
    return Delivery(target, host, HostState(RELEASE, 1 << 40, {}), bundle.manifest.parts)


def test_host_that_fails_stops_no_other(tmp_path: Path, bundle_file: Path) -> None:
    # The script of each command is in $0; what is fed to it is kept if it is an image.
    keep = f"case $0 in *images/a.tar.part*) cat >>{tmp_path}/$NAME ;; *) cat >/dev/null ;; esac"
    key = signing_key(tmp_path / "keys").public_key()
    with verified_bundle(bundle_file, key) as bundle:
        good = [delivery(bundle, name, keep.replace("$NAME", name)) for name in ("a", "c")]
        # It does not read all that it gets.
        full = "head -c 1 >/dev/null; echo No space left on device >&2; exit 1"
        problems = deliver_all(bundle, [good[0], delivery(bundle, "b", full), good[1]])
    assert problems == {"b": "b: No space left on device"}
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes() == IMAGE


def test_group_is_not_deployed_without_a_member(tmp_path: Path, bundle_file: Path) -> None:
    """The others would wait for it, after the engine that they have was stopped."""
    group = {"engine_group_members": {"a": "10.9.0.1", "b": "10.9.0.2"}, "engine_group_head": "a"}
    key = signing_key(tmp_path / "keys").public_key()
    with verified_bundle(bundle_file, key) as bundle:
        takes, full = "cat >/dev/null", "head -c 1 >/dev/null; echo No space left >&2; exit 1"
        members = [delivery(bundle, "a", takes, **group), delivery(bundle, "b", full, **group)]
        problems = deliver_all(bundle, [*members, delivery(bundle, "c", takes)])
    assert problems == {"a": "a: is in one engine group with b", "b": "b: No space left"}
