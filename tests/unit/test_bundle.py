"""A bundle is used whole and unaltered, or not at all."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from llmhost.bundle.file import MANIFEST, SIGNATURE, verified_bundle, write_bundle
from llmhost.bundle.key import (
    PRIVATE,
    PUBLIC,
    fingerprint,
    is_signed,
    signing_key,
    verifying_key,
)
from llmhost.bundle.manifest import BundleError, Manifest, Release, lacking, read_manifest, unfit
from llmhost.bundle.parts import Parts

TRIXIE = Release("debian", "13", "amd64")
KEY = Ed25519PrivateKey.generate()
CONTENTS = {
    "packages/Packages": b"Package: nginx\n",
    "packages/pool/nginx_1.26.3-3_amd64.deb": b"d" * 3000,
    "images/llamacpp-0123456789abcdef.tar": bytes(range(256)) * 100,
    "wheels/empty.whl": b"",
}
IMAGE = "llmhost/llamacpp:0123456789abcdef"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    parts = Parts(tmp_path / "parts")
    return Manifest(
        created="2026-11-21T12:00:00+00:00",
        toolkit={"version": "0.1.0", "revision": "ab" * 20, "modified": False},
        release=TRIXIE,
        python="3.11.2 on x86_64",
        settings={"llm-server": "cd" * 32},
        packages=("curl", "nginx"),
        images={IMAGE: "images/llamacpp-0123456789abcdef.tar"},
        parts=tuple(parts.keep(path, data) for path, data in CONTENTS.items()),
    )


@pytest.fixture
def bundle(tmp_path: Path, manifest: Manifest) -> Path:
    file = tmp_path / "site.bundle"
    write_bundle(file, manifest, tmp_path / "parts", KEY)
    return file


def contents(file: Path, key: Ed25519PrivateKey = KEY) -> dict[str, bytes]:
    with verified_bundle(file, key.public_key()) as opened:
        return {part.path: b"".join(opened.read(part)) for part in opened.manifest.parts}


def refusal(file: Path, key: Ed25519PrivateKey = KEY) -> str:
    with pytest.raises(BundleError) as refused:
        contents(file, key)
    sentence = str(refused.value)
    assert sentence.startswith(str(file)) and "\n" not in sentence
    return sentence.removeprefix(f"{file} ")


def test_whole_bundle_gives_back_what_was_put_in(bundle: Path, manifest: Manifest) -> None:
    assert contents(bundle) == CONTENTS
    with verified_bundle(bundle, KEY.public_key()) as opened:
        assert opened.manifest == manifest
        image = opened.manifest.below("images")[0]
        assert b"".join(opened.read(image, 25_000)) == CONTENTS[image.path][25_000:]


def test_manifest_names_every_file_with_its_size_and_hash(bundle: Path) -> None:
    with tarfile.open(bundle) as tar:
        text = tar.extractfile(MANIFEST)
        assert text
        document = json.load(text)
        names = tar.getnames()
    assert names[:2] == [MANIFEST, SIGNATURE]
    assert [part["path"] for part in document["parts"]] == names[2:]
    assert all(len(part["sha256"]) == 64 and "bytes" in part for part in document["parts"])
    assert document["release"] == {
        "distribution": "debian",
        "version": "13",
        "architecture": "amd64",
    }
    assert {"format", "toolkit", "settings", "packages", "images"} <= document.keys()


def test_progress_hears_of_every_byte(bundle: Path, manifest: Manifest) -> None:
    told: list[int] = []
    with verified_bundle(bundle, KEY.public_key(), told.append):
        assert sum(told) == manifest.size


@pytest.mark.parametrize("lost", [1, 512, 1024, 5000, 10240, 20000, 30000])
def test_bundle_that_is_cut_off_is_refused(bundle: Path, lost: int) -> None:
    whole = bundle.read_bytes()
    bundle.write_bytes(whole[:-lost])
    assert refusal(bundle).startswith(("is cut off: copy it again", "lacks "))


@pytest.mark.parametrize("left", [0, 1, 100, 700])
def test_bundle_of_which_hardly_anything_is_left_is_refused(bundle: Path, left: int) -> None:
    bundle.write_bytes(bundle.read_bytes()[:left])
    assert refusal(bundle).startswith(("is not a bundle:", "is cut off:"))


def test_no_altered_byte_goes_unnoticed(bundle: Path) -> None:
    whole = bundle.read_bytes()
    refused = 0
    for place in range(0, len(whole), 97):
        altered = bytearray(whole)
        altered[place] ^= 0x20
        bundle.write_bytes(altered)
        try:
            # A byte between two parts may be another; what is used may not.
            assert contents(bundle) == CONTENTS
        except BundleError:
            refused += 1
    assert refused > len(whole) // 97 // 2


def test_altered_part_is_named(bundle: Path) -> None:
    whole = bundle.read_bytes()
    bundle.write_bytes(whole.replace(b"d" * 3000, b"d" * 2999 + b"e"))
    assert refusal(bundle).startswith(
        "was altered: packages/pool/nginx_1.26.3-3_amd64.deb does not match the manifest"
    )


def test_part_altered_together_with_its_hash_is_refused(bundle: Path, manifest: Manifest) -> None:
    whole = bundle.read_bytes()
    old, new = manifest.parts[0].sha256.encode(), b"0" * 64
    bundle.write_bytes(whole.replace(old, new))
    assert f"is not signed with the key {fingerprint(KEY.public_key())}" in refusal(bundle)


def test_bundle_of_another_maker_is_refused(bundle: Path) -> None:
    assert refusal(bundle, Ed25519PrivateKey.generate()).startswith("is not signed with the key ")


def repacked(file: Path, change: Callable[[list[tuple[str, bytes]]], None]) -> None:
    """Write the archive again with other members, as somebody without the key could."""
    with tarfile.open(file) as tar:
        members = [(m.name, (tar.extractfile(m) or io.BytesIO()).read()) for m in tar]
    change(members)
    with tarfile.open(file, "w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda members: members.pop(2), "lacks packages/Packages: copy it again"),
        (lambda members: members.append(("packages/evil.deb", b"")), "was altered: packages/evil"),
        (lambda members: members.append(members[2]), "was altered: it contains a part twice"),
        (
            lambda members: members.pop(1),
            "is not a bundle: it does not begin with a signed manifest",
        ),
        (
            lambda members: members.pop(0),
            "is not a bundle: it does not begin with a signed manifest",
        ),
        (
            lambda members: members.clear(),
            "is not a bundle: it does not begin with a signed manifest",
        ),
    ],
)
def test_archive_with_other_members_is_refused(
    bundle: Path, change: Callable[[list[tuple[str, bytes]]], None], sentence: str
) -> None:
    repacked(bundle, change)
    assert refusal(bundle).startswith(sentence)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("a" * 20480)
    assert refusal(other).startswith("is not a bundle: not a tar archive")
    assert refusal(tmp_path / "nowhere") == "cannot be read: No such file or directory"


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"format": 1}', b"\xff", b'{"format": 1, "parts": 1}']
)
def test_signed_manifest_that_makes_no_sense_is_refused(text: bytes) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        read_manifest(text)


def test_bundle_of_another_format_is_refused(manifest: Manifest) -> None:
    text = manifest.write().replace(b'"format": 1', b'"format": 2')
    with pytest.raises(BundleError, match="created by another llmhost version: recreate it"):
        read_manifest(text)


@pytest.mark.parametrize(
    "found", [Release("debian", "12", "amd64"), Release("debian", "13", "arm64")]
)
def test_host_of_another_release_or_architecture_is_refused(
    manifest: Manifest, found: Release
) -> None:
    assert [*unfit(manifest, "llm-server", TRIXIE)] == []
    assert [*unfit(manifest, "llm-server", found)] == [
        f"llm-server runs {found}, but the bundle is for debian 13 on amd64: create one for it"
    ]


def test_inventory_that_asks_for_more_than_the_bundle_has_is_refused(manifest: Manifest) -> None:
    assert [*lacking(manifest, "llm-server", ["nginx"], [IMAGE])] == []
    packages, image = lacking(
        manifest, "llm-server", ["nginx", "mtail", "ufw"], [IMAGE, "llmhost/redis:1"]
    )
    assert packages.startswith("llm-server needs packages that are not in the bundle (mtail, ufw)")
    assert image.startswith("llm-server needs the image llmhost/redis:1, which is not in the")


def test_finished_part_is_used_again_and_a_damaged_one_made_anew(tmp_path: Path) -> None:
    made: list[str] = []

    def make(parts: Parts) -> bytes:
        def write(file: io.BufferedIOBase) -> None:
            made.append("anew")
            file.write(b"content")

        part = parts.obtain("images/a.tar", write)  # type: ignore[arg-type]
        return (parts.directory / part.path).read_bytes()

    assert make(Parts(tmp_path)) == make(Parts(tmp_path)) == b"content"
    assert made == ["anew"]
    (tmp_path / "images/a.tar").write_bytes(b"damaged")
    assert make(Parts(tmp_path)) == b"content"
    (tmp_path / "parts.json").write_text("{")
    assert make(Parts(tmp_path)) == b"content"
    assert made == ["anew"] * 3


def test_part_in_the_making_does_not_count(tmp_path: Path) -> None:
    def killed(file: io.BufferedIOBase) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Parts(tmp_path).obtain("images/a.tar", killed)  # type: ignore[arg-type]
    assert Parts(tmp_path).finished("images/a.tar") is None
    assert not (tmp_path / "images/a.tar").exists()


def test_bundle_that_can_not_be_completed_leaves_no_file(
    tmp_path: Path, manifest: Manifest
) -> None:
    (tmp_path / "parts" / manifest.parts[-1].path).unlink()
    with pytest.raises(OSError, match=r"empty\.whl"):
        write_bundle(tmp_path / "site.bundle", manifest, tmp_path / "parts", KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_part_that_shrank_meanwhile_is_noticed(tmp_path: Path, manifest: Manifest) -> None:
    smaller = replace(manifest.parts[1], bytes=manifest.parts[1].bytes + 1)
    wrong = replace(manifest, parts=(manifest.parts[0], smaller))
    with pytest.raises(OSError, match="unexpected end of data"):
        write_bundle(tmp_path / "site.bundle", wrong, tmp_path / "parts", KEY)


def test_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    home = tmp_path / "home/bundle"
    key = signing_key(home)
    assert (home / PRIVATE).stat().st_mode & 0o777 == 0o600
    again, public = signing_key(home), verifying_key(home / PUBLIC)
    assert fingerprint(again.public_key()) == fingerprint(public)
    assert is_signed(b"text", key.sign(b"text"), public)
    assert not is_signed(b"other", key.sign(b"text"), public)


def test_missing_or_broken_keys_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no key .*: copy bundle\.pub from the machine"):
        verifying_key(tmp_path / PUBLIC)
    (tmp_path / PUBLIC).write_text("no key")
    with pytest.raises(BundleError, match="is not a bundle's public key"):
        verifying_key(tmp_path / PUBLIC)
    (tmp_path / PRIVATE).write_text("no key")
    with pytest.raises(BundleError, match="is not an Ed25519 key"):
        signing_key(tmp_path)
