"""The site's store of weights: its options, its addresses, and what a host needs for it.

tests/integration/test_model_store.py has real servers.
"""

import getpass
import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmhost.cli import store_client
from llmhost.docker.image_scripts import prepare_script
from llmhost.facts.disk_space import HostRoom
from llmhost.facts.model_store import FromStore, ShareState
from llmhost.facts.system import HostIdentityFact, HostTime
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.models.signature import Key, presigned
from llmhost.models.store import address, credentials, curl_configuration, open_address
from llmhost.operations import preflight
from llmhost.options.model_store import ModelStore
from llmhost.preflight import Requirements, without_share
from llmhost.resources import script
from llmhost.settings import Settings
from llmhost.stack.project import service_images
from llmhost.system.host_identity import parse_identity
from tests.integration.file_server import file_server

SHA256 = hashlib.sha256(b"weights").hexdigest()
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
BUCKET = {"model_store_location": "s3://models/llm"}
KEY = {"model_store_key_id": "env:STORE_ID", "model_store_key": "env:STORE_KEY"}


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_ID", "an-id")
    monkeypatch.setenv("STORE_KEY", 'a "secret"\\')


def settings(**data: Any) -> Settings:
    model = {"name": "tiny", "source": "https://hub.example/tiny.gguf", "sha256": SHA256}
    clients = [{"name": "app", "sha256": "cd" * 32}]
    data = {"services": ["llamacpp"], "models": [model], "api_clients": clients, **data}
    return read_settings(data)


def store(**data: Any) -> ModelStore:
    return settings(**data).model_store


def test_signature_is_that_of_amazon_s_example() -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html"""
    key = Key("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
    url = "https://examplebucket.s3.amazonaws.com/test.txt"
    found = presigned("GET", url, key, datetime(2013, 5, 24, tzinfo=UTC), 86_400)
    assert found == (
        f"{url}?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"model_store_location": "/mnt/models"}, f"/mnt/models/{SHA256}"),
        ({"model_store_location": "https://x.example/w/"}, f"https://x.example/w/{SHA256}"),
        (
            {**BUCKET, **KEY, "model_store_region": "eu-central-1"},
            f"https://s3.eu-central-1.amazonaws.com/models/llm/{SHA256}",
        ),
        (
            {**BUCKET, **KEY, "model_store_endpoint": "http://minio:9000/"},
            f"http://minio:9000/models/llm/{SHA256}",
        ),
    ],
)
def test_file_is_named_by_its_digest(data: dict[str, str], expected: str) -> None:
    found = store(**data)
    assert address(found, SHA256) == expected
    assert open_address(found, SHA256) == ("" if found.key else expected)


def test_host_gets_no_key_of_a_bucket() -> None:
    found = store(**BUCKET, **KEY)
    config = curl_configuration(found, credentials(found), SHA256, NOW)
    assert config.startswith(f'url = "https://s3.us-east-1.amazonaws.com/models/llm/{SHA256}?X-Amz')
    assert "secret" not in config and len(config.splitlines()) == 1


def test_curl_reads_user_name_and_password_as_they_are(tmp_path: Path) -> None:
    found = store(model_store_location="http://127.0.0.1:1/w", **KEY)
    (tmp_path / "config").write_text(curl_configuration(found, credentials(found), SHA256, NOW))
    shown = subprocess.run(
        ["curl", "--config", tmp_path / "config", "--libcurl", "-"], capture_output=True, text=True
    ).stdout
    assert r'CURLOPT_USERPWD, "an-id:a \"secret\"\\"' in shown
    assert f'CURLOPT_URL, "http://127.0.0.1:1/w/{SHA256}"' in shown


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"model_store_location": "ftp://x.example/w"}, "https:// or http:// URL without a user"),
        ({"model_store_location": "models"}, "write an absolute path on the host"),
        ({"model_store_location": "https://me:secret@x.example/w"}, "URL without a user name"),
        ({"model_store_location": "https://x.example/w?token=a"}, "write an absolute path"),
        ({"model_store_location": "https://x.example:port/w"}, "model_store_location: is no URL"),
        ({"model_store_location": "https://[::1/w"}, "model_store_location: is no URL"),
        ({"model_store_location": "https://x..example/w"}, "model_store_location: is no URL"),
        ({"model_store_location": "https://x.example/\x01"}, "model_store_location: is no URL"),
        (
            {**BUCKET, **KEY, "model_store_endpoint": "https://:9000"},
            "model_store_endpoint: is no URL",
        ),
        (BUCKET, "model_store_key: is missing, and a bucket needs it; add model_store_key_id"),
        ({**BUCKET, "model_store_key": "env:STORE_KEY"}, "model_store_key_id: is missing"),
        ({**BUCKET, **KEY, "model_store_key": "a-secret"}, "never the secret itself"),
        ({"model_store_location": "/mnt/models", **KEY}, "is only for a URL or a bucket"),
        (
            {"model_store_location": "/mnt/models", "model_store_endpoint": "http://minio"},
            "model_store_endpoint: is only for a location such as s3://BUCKET; remove it",
        ),
        (
            {**BUCKET, **KEY, "model_store_key": "env:NOT_SET"},
            "model_store_key: refers to the environment variable NOT_SET, which is not set",
        ),
        (
            {**BUCKET, **KEY, "model_store_key_id": "file:/nowhere"},
            "model_store_key_id: refers to the file /nowhere, which cannot be read",
        ),
    ],
)
def test_what_can_not_work_is_refused_in_one_sentence(data: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(**data)
    (problem,) = refused.value.problems
    assert sentence in problem.sentence("llm-1")
    assert "me:secret" not in problem.sentence("llm-1")


def share_state(place: Path) -> str:
    command = ShareState().command(str(place))
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert not ran.stderr
    return ShareState().process(ran.stdout.splitlines())


def test_share_that_is_not_mounted_is_recognized(tmp_path: Path) -> None:
    filled, empty, file = tmp_path / "a share", tmp_path / "empty", tmp_path / "file"
    filled.mkdir()
    empty.mkdir()
    file.touch()
    (filled / SHA256).touch()
    assert share_state(filled) == ""
    assert share_state(empty) == "is empty"
    assert share_state(tmp_path / "nothing") == share_state(file) == "does not exist"
    assert list(without_share("/mnt/models", "")) == []
    assert list(without_share("/mnt/models", "is empty")) == [
        "/mnt/models (model_store_location) is empty on the host; mount the share there, or fill"
        " it with: llmhost model store INVENTORY"
    ]


def stored(whole: Path, where: str, doubles: Path | None = None) -> str:
    """Why a host does not get weights from the store; `doubles` has programs in front of others."""
    command = ["sh", "-c", script("docker/store.sh", f"{whole}.part", str(whole), SHA256, where)]
    tools = {**os.environ, "PATH": f"{doubles}:{os.environ['PATH']}", "no_proxy": "127.0.0.1"}
    given = f'url = "{where}"'
    subprocess.run(command, input=given, env=tools, text=True, check=True, timeout=60)
    return subprocess.run(
        ["sh", "-c", FromStore().command(str(whole))], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_silent_store_is_asked_once_in_a_deploy(tmp_path: Path) -> None:
    """A firewall that drops packets costs 87 s for each of a model's files."""
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    assert "does not answer" in stored(uploads / "one", "http://127.0.0.1:1/one")
    with file_server("127.0.0.1", b"weights") as server:
        assert "did not answer before" in stored(uploads / "two", f"{server.url}/two")
        assert not server.ranges
        prepared = {**os.environ, "SUDO_USER": getpass.getuser()}
        subprocess.run(["sh", "-c", prepare_script(str(uploads))], env=prepared, check=True)
        assert stored(uploads / "two", f"{server.url}/two") == ""
    assert (uploads / "two").read_bytes() == b"weights"


def test_share_whose_server_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "timeout").write_text('#!/bin/sh\nshift\nexec /usr/bin/timeout 1 "$@"\n')
    (tmp_path / "test").write_text("#!/bin/sh\nsleep 30\n")
    hangs = '[ "$1" != -L ] || sleep 30'
    (tmp_path / "stat").write_text(f'#!/bin/sh\n{hangs}\nexec /usr/bin/stat "$@"\n')
    for each in ("timeout", "test", "stat"):
        (tmp_path / each).chmod(0o755)
    place = str(tmp_path / SHA256)
    Path(place).touch()
    assert f"does not answer at {place}" in stored(tmp_path / "whole", place, tmp_path)
    command = HostRoom().command(str(tmp_path), [place], [])
    tools = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", command], env=tools, capture_output=True, timeout=15, check=True)


def test_images_do_not_depend_on_the_store() -> None:
    plain, stored = (
        service_images(settings(**data))[0]
        for data in ({}, {"model_store_location": "/mnt/models"})
    )
    assert stored.models[0].files[0].store and not plain.models[0].files[0].store
    assert (stored.reference, stored.inputs) == (plain.reference, plain.inputs)
    assert stored.models[0].reference == plain.models[0].reference
    assert stored.build_files == plain.build_files


def test_size_of_weights_in_a_share_is_known_before_they_are_copied(tmp_path: Path) -> None:
    share = tmp_path / "it's a share"
    share.mkdir()
    (share / SHA256).write_bytes(b"weights")
    command = HostRoom().command(str(tmp_path), [f"{share}/{SHA256}", f"{share}/nothing"], [])
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    room = HostRoom().process(ran.stdout.splitlines())
    assert room.sizes == {f"{share}/{SHA256}": len(b"weights")}


@pytest.mark.parametrize("deployed", [False, True])
def test_missing_share_refuses_a_new_host_and_warns_on_a_deployed_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deployed: bool
) -> None:
    lines = ["distribution=debian", "version=13", "codename=trixie", "machine=x86_64", "uid=0"]
    lines += ["user=root", "init=systemd", "memory_kib=33554432", "virtualization=none"]
    lines += ["kernel=6.12.0-amd64", "boot_id=0b1f"]
    identity = replace(parse_identity(lines), deployed=deployed)
    found = {HostIdentityFact: identity, HostTime: time.time()}
    found[ShareState] = share_state(tmp_path / "not mounted")
    noted: list[str] = []
    monkeypatch.setattr(preflight, "get_fact", lambda fact, **_: found[fact])
    monkeypatch.setattr(preflight, "refuse", list)
    monkeypatch.setattr(preflight, "note", noted.extend)
    body = preflight.fit._inner  # type: ignore[attr-defined]
    share = str(tmp_path / "not mounted")
    refused = [
        each for many in body(Requirements(), paths=[], receipt="", share=share) for each in many
    ]
    sentences = list(without_share(share, "does not exist"))
    assert (refused, noted) == (([], sentences) if deployed else (sentences, []))


def test_two_controllers_may_fill_a_share_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    (tmp_path / "share").mkdir()
    copied, real = [0], shutil.copyfile

    def copyfile(source: Path, place: Path) -> None:
        real(source, place)
        copied[0] += 1
        if copied[0] == 1:
            share.put(SHA256, tmp_path / "file")

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    share = store_client.DirectoryStore(tmp_path / "share")
    share.put(SHA256, tmp_path / "file")
    assert copied == [2] and [each.name for each in (tmp_path / "share").iterdir()] == [SHA256]
    assert (tmp_path / "share" / SHA256).read_bytes() == b"weights"


def test_interrupted_copy_leaves_nothing_in_a_share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def copyfile(_: Path, place: Path) -> None:
        place.write_bytes(b"wei")
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(KeyboardInterrupt):
        store_client.DirectoryStore(tmp_path).put(SHA256, tmp_path / "file")
    assert not [*tmp_path.iterdir()]


def fill(
    directory: Path, source: str, store: str, **more: str
) -> "subprocess.CompletedProcess[str]":
    """`llmhost model store`, of one model with more keys."""
    model = {"name": "tiny", "source": source, "sha256": SHA256, **more}
    data = {"services": ["llamacpp"], "models": [model], "model_store_location": store}
    data["api_clients"] = [{"name": "app", "sha256": "cd" * 32}]
    (directory / "site.py").write_text(f"servers = [('llm', {data!r})]\n")
    command = [sys.executable, "-m", "llmhost.cli", "model", "store", "site.py"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True)


def test_part_of_a_file_is_not_there_already(tmp_path: Path) -> None:
    """As of an interrupted copy: only its source knows how long the file is."""
    share = tmp_path / "share"
    share.mkdir()
    (share / SHA256).write_bytes(b"wei")
    with file_server("127.0.0.1", b"weights") as server:
        source = f"{server.url}/tiny.gguf"
        assert "1 file stored, 0 there already" in fill(tmp_path, source, str(share)).stdout
        assert (share / SHA256).read_bytes() == b"weights"
        assert "0 files stored, 1 there already" in fill(tmp_path, source, str(share)).stdout
    assert "1 there already" in fill(tmp_path, "http://127.0.0.1:1/t.gguf", str(share)).stdout


@pytest.mark.parametrize("token", ["hf_secret\nof two lines", "\u201chf_secret\u201d"])
def test_token_that_no_header_can_have_is_refused_and_not_printed(
    tmp_path: Path, token: str
) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "token").write_text(token)
    with file_server("127.0.0.1", b"weights", token="hf_secret") as server:
        source = f"{server.url}/tiny.gguf"
        ran = fill(tmp_path, source, str(tmp_path / "share"), token="file:token")
    assert ran.returncode == 1
    assert ran.stderr == (
        "error: tiny: its token refers to the file token, whose value has spaces, line breaks or"
        " characters beyond ASCII\n"
    )


def test_newline_after_a_token_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hf_secret\n")
    (tmp_path / "share").mkdir()
    with file_server("127.0.0.1", b"weights", token="hf_secret") as server:
        source = f"{server.url}/tiny.gguf"
        ran = fill(tmp_path, source, str(tmp_path / "share"), token="env:TOKEN")
    assert "1 file stored" in ran.stdout, ran.stderr


def test_password_of_two_lines_is_refused_and_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """curl would read the second line as an option, and print it."""
    monkeypatch.setenv("STORE_KEY", "one\nsecret")
    with pytest.raises(SettingsError) as refused:
        settings(model_store_location="https://store.example/w", **KEY)
    (problem,) = refused.value.problems
    assert "STORE_KEY, whose value has line breaks" in problem.sentence("llm-1")
    assert "secret" not in problem.sentence("llm-1")


def test_full_disk_of_the_host_is_not_the_fault_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/curl").write_text("#!/bin/sh\nprintf 200\nexit 23\n")
    (tmp_path / "bin/curl").chmod(0o755)
    why = stored(tmp_path / "whole", "http://127.0.0.1:1/w", tmp_path / "bin")
    assert f"the host cannot write {tmp_path}/whole.part: its disk may be full" in why
    assert not (tmp_path / "store.silent").exists()
