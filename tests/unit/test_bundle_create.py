"""What `llmhost bundle create` collects from the controller, and how a host's images are built on
another machine. tests/integration/test_airgap.py has a builder with Docker."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from llmhost.bundle.file import verified_bundle, write_bundle
from llmhost.bundle.key import signing_key
from llmhost.bundle.manifest import Manifest, Release
from llmhost.bundle.parts import Parts
from llmhost.cli import bundle_create
from llmhost.cli.remote import Remote
from llmhost.cli.run import run_pyinfra
from llmhost.inventory.site_reader import HostData, read_site

RELEASE = Release("debian", "13", "amd64")
CLIENTS = [{"name": "app", "sha256": "cd" * 32}]


def test_lock_files_of_one_name_are_all_in_the_bundle(tmp_path: Path) -> None:
    """Otherwise nobody could apply it: it would have a part twice."""
    hosts: list[HostData] = []
    for name in ("a", "b"):
        lock = tmp_path / name / "models.lock.json"
        lock.parent.mkdir()
        lock.write_text('{"version": 1, "models": {}}' + " " * len(hosts))
        data = {"services": ["redis"], "api_clients": CLIENTS, "stack_models_lock": str(lock)}
        hosts.append(HostData(name, data))
    parts, key = Parts(tmp_path / "parts"), signing_key(tmp_path / "key")
    pins = tuple(bundle_create._pins([*read_site(hosts).values()], parts))
    assert [each.path for each in pins] == ["pins/models.lock.json", "pins/2-models.lock.json"]
    manifest = Manifest("now", {}, RELEASE, "", {}, (), {}, pins)
    write_bundle(tmp_path / "bundle", manifest, parts.directory, key)
    with verified_bundle(tmp_path / "bundle", key.public_key()) as bundle:
        assert [len(b"".join(bundle.read(each))) for each in pins] == [28, 29]


def test_images_of_an_engine_group_are_built_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GROUP", "g" * 32)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    files = [{"path": "model.safetensors", "sha256": sha256}]
    data: dict[str, Any] = {
        "services": ["vllm"],
        "models": [{"name": "brain", "service": "vllm", "source": str(tmp_path), "files": files}],
        "vllm_gpu": [0, 1],
        "api_clients": CLIENTS,
        "engine_group_members": {"one": "10.9.0.1", "two": "10.9.0.2"},
        "engine_group_head": "one",
        "engine_group_interface": "eth1",
        "engine_group_token": "env:GROUP",
        "preflight_min_free_disk_gib": 0,
    }
    # Without Docker: up to the first command.
    dry: Any = lambda *words: run_pyinfra(*words, "--dry")  # noqa: E731
    monkeypatch.setattr(bundle_create, "run_pyinfra", dry)
    here = bundle_create.Builder(Remote("this machine", ("sh", "-c")), {}, RELEASE, "trixie")
    for target in read_site([HostData(each, data) for each in ("one", "two")]).values():
        bundle_create._bake(target, here)
    assert capfd.readouterr().err.count("[@local] Ready:") == 2
