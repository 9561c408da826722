"""The site's store of weights, with the real pyinfra, curl and nginx: what a host gets from it,
what it gets from the source, and what fills the store. S3 is moto; botocore judges the signatures.

Docker is a double that unpacks what it imports; tests/integration/test_images.py has the real one.
"""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmhost.inventory.reader import read_settings
from llmhost.models.store import credentials, signed
from llmhost.options.model_store import ModelStore
from llmhost.stack.project import service_images
from testbed import environments
from testbed.process import wait_until
from tests.integration.file_server import FileServer, file_server
from tests.integration.local_gateway import free_ports
from tests.programs import running
from tests.unit.conftest import own_machine as own_machine

pytestmark = [pytest.mark.machines, pytest.mark.usefixtures("own_machine")]

WEIGHTS = os.urandom(300_000)
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
LLMHOST = Path(sys.executable).with_name("llmhost")
PYINFRA = Path(sys.executable).with_name("pyinfra")
ID, KEY = "store-user", 'store "secret" \\ 1'
SECRETS = {"model_store_key_id": "env:STORE_ID", "model_store_key": "env:STORE_KEY"}
MISSING = "the weights of tiny come from their source"
NOWHERE = "http://127.0.0.1:1"
Data = dict[str, Any]

_DEPLOY = """
import pickle
from pathlib import Path
from pyinfra.api import StringCommand
from llmhost.docker import image_scripts
from llmhost.operations import images
from llmhost.operations.declaration import declared

model, uploads = pickle.loads(Path("model.pickle").read_bytes())

@declared(prefetch=None)
def obtained():
    yield StringCommand(image_scripts.prepare_script(uploads))
    room = images._room(uploads, [model.files], [])
    sizes = {file.sha256: images._size(file, room) for file in model.files}
    yield from images._transferred(model, images._arriving(model, ()), uploads, sizes)

obtained(name="Obtain the weights")
"""
_DOCKER = """#!/bin/sh
[ "$1" = import ] && exec tar -x -C "$IMAGE_ROOT"
"""


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_ID", ID)
    monkeypatch.setenv("STORE_KEY", KEY)


@dataclass(frozen=True)
class Site:
    """A directory with an inventory of one model."""

    directory: Path

    @property
    def uploads(self) -> Path:
        return self.directory / "uploads"

    @property
    def baked(self) -> Path:
        return next(self.directory.glob("root/models/*"), self.directory / "none")

    def data(self, source: str, **options: object) -> Data:
        model = {"name": "tiny", "source": source, "sha256": SHA256}
        clients = [{"name": "app", "sha256": "cd" * 32}]
        return {"services": ["llamacpp"], "models": [model], "api_clients": clients, **options}

    def deploy(self, source: str, **options: object) -> "subprocess.CompletedProcess[str]":
        """Get the weights on this machine, as a deploy does, with all that pyinfra can print."""
        (image,) = service_images(read_settings(self.data(source, **options)))
        given = pickle.dumps((image.models[0], str(self.uploads)))
        (self.directory / "model.pickle").write_bytes(given)
        (self.directory / "deploy.py").write_text(_DEPLOY)
        (self.directory / "root").mkdir(exist_ok=True)
        docker = self.directory / "bin/docker"
        docker.parent.mkdir(exist_ok=True)
        docker.write_text(_DOCKER)
        docker.chmod(0o755)
        return subprocess.run(
            [PYINFRA, "-vvv", "-y", "@local", "deploy.py"],
            cwd=self.directory,
            env={
                **os.environ,
                "PATH": f"{docker.parent}:{os.environ['PATH']}",
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "IMAGE_ROOT": str(self.directory / "root"),
            },
            capture_output=True,
            text=True,
            timeout=120,
        )

    def obtained(self, source: str, **options: object) -> str:
        """What a deploy prints that gets the right weights."""
        self.baked.unlink(missing_ok=True)
        ran = self.deploy(source, **options)
        said = ran.stdout + ran.stderr
        assert ran.returncode == 0, said
        assert self.baked.read_bytes() == WEIGHTS
        return said

    def fill(self, source: str, *arguments: str, **options: object) -> str:
        """What `llmhost model store` prints; of a refusal, its sentence."""
        data = self.data(source, **options)
        (self.directory / "site.py").write_text(f"servers = [('llm', {data!r})]\n")
        command = [str(LLMHOST), "model", "store", "site.py", *arguments]
        ran = subprocess.run(command, cwd=self.directory, capture_output=True, text=True)
        assert bool(ran.returncode) == ran.stderr.startswith("error: "), ran.stderr
        assert len(ran.stderr.splitlines()) <= 1
        assert KEY not in ran.stderr + ran.stdout
        return ran.stderr if ran.returncode else ran.stdout


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def source() -> Iterator[FileServer]:
    with file_server("127.0.0.1", WEIGHTS) as server:
        yield server


_NGINX = """
daemon off; pid {place}/pid; error_log {place}/error.log; user root;
events {{}}
http {{
  access_log {place}/access.log; client_body_temp_path {place}/body;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port}; root {place}/www;
    auth_basic "store"; auth_basic_user_file {place}/users;
    location /open/ {{ auth_basic off; }}
    location /writable/ {{ dav_methods PUT; }}
  }}
}}
"""


@dataclass(frozen=True)
class Web:
    """An nginx: `open/` is readable by everyone, `writable/` with the password, by WebDAV."""

    url: str
    directory: Path

    @property
    def requests(self) -> list[str]:
        """`GET 200` for each request."""
        lines = (self.directory / "access.log").read_text().splitlines()
        return [f"{line.split()[5][1:]} {line.split()[8]}" for line in lines]


@pytest.fixture
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    place, (port,) = tmp_path_factory.mktemp("web"), free_ports(1)
    for name in ("open", "writable"):
        (place / "www" / name).mkdir(parents=True)
    (place / "users").write_text(f"{ID}:{{PLAIN}}{KEY}\n")
    (place / "nginx.conf").write_text(_NGINX.format(place=place, port=port))
    with running(["nginx", "-c", place / "nginx.conf"], stderr=subprocess.DEVNULL) as process:
        assert wait_until(lambda: _answers(f"http://127.0.0.1:{port}"), 20)
        yield Web(f"http://127.0.0.1:{port}", place)
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code < 500
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    (port,) = free_ports(1)
    program = environments.installed("moto") / "bin/moto_server"
    url = f"http://127.0.0.1:{port}"
    with running([program, "--port", str(port)], stderr=subprocess.DEVNULL) as process:
        assert wait_until(lambda: _answers(url), 60)
        assert httpx.put(f"{url}/models", headers=_account()).is_success
        yield url
        process.terminate()
        process.wait(20)


def _account() -> dict[str, str]:
    """moto gives a private object to anyone who names an account."""
    scope = f"{ID}/20260101/us-east-1/s3/aws4_request"
    return {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}"}


def bucket(url: str) -> Data:
    return {"model_store_location": "s3://models/llm", "model_store_endpoint": url, **SECRETS}


def test_share_has_priority_over_the_source(site: Site, source: FileServer) -> None:
    share = site.directory / "share"
    share.mkdir()
    place = {"model_store_location": str(share)}
    assert f"the model store has no {share}/{SHA256}; the weights of tiny come from their" in (
        site.obtained(f"{source.url}/tiny.gguf", **place)
    )
    assert len(source.ranges) == 1
    assert f"stored as {SHA256}" in site.fill(f"{source.url}/tiny.gguf", **place)
    assert [each.name for each in share.iterdir()] == [SHA256]
    assert "0 files stored, 1 there already" in site.fill(f"{source.url}/tiny.gguf", **place)
    assert len(source.ranges) == 2
    assert MISSING not in site.obtained(f"{NOWHERE}/tiny.gguf", **place)
    assert len(source.ranges) == 2


def test_weights_of_the_controller_come_from_the_store_too(site: Site) -> None:
    share, file = site.directory / "share", site.directory / "tiny.bin"
    share.mkdir()
    file.write_bytes(WEIGHTS)
    place = {"model_store_location": str(share)}
    assert MISSING in site.obtained(str(file), **place)
    assert "1 file stored" in site.fill(str(file), **place)
    assert (share / SHA256).read_bytes() == WEIGHTS
    assert file.read_bytes() == WEIGHTS
    assert MISSING not in site.obtained(str(file), **place)


def test_wrong_file_in_the_store_is_named_and_not_used(site: Site, source: FileServer) -> None:
    share = site.directory / "share"
    share.mkdir()
    # As long as the right one, and equal at first.
    wrong = WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1])
    (share / SHA256).write_bytes(wrong)
    place = {"model_store_location": str(share)}
    said = site.obtained(f"{source.url}/tiny.gguf", **place)
    digest = hashlib.sha256(wrong).hexdigest()
    assert f"{share}/{SHA256} has the SHA-256 {digest}; replace it with: llmhost model" in said
    site.baked.unlink()
    offline = site.deploy(f"{NOWHERE}/tiny.gguf", **place)
    assert offline.returncode and not site.baked.exists()
    assert "the model store is wrong" in offline.stdout + offline.stderr
    site.fill(f"{source.url}/tiny.gguf", "--update", **place)
    site.obtained(f"{NOWHERE}/tiny.gguf", **place)


def test_source_with_another_file_does_not_get_into_the_store(site: Site) -> None:
    share = site.directory / "share"
    share.mkdir()
    with file_server("127.0.0.1", b"something else") as server:
        said = site.fill(f"{server.url}/tiny.gguf", model_store_location=str(share))
    assert "another SHA-256 than its pin" in said
    assert [*share.iterdir()] == []


def test_web_server_is_filled_and_asked_with_a_password(
    site: Site, source: FileServer, web: Web
) -> None:
    place = {"model_store_location": f"{web.url}/writable", **SECRETS}
    missing = site.obtained(f"{source.url}/tiny.gguf", **place)
    assert f"the model store has no {web.url}/writable/{SHA256}" in missing
    assert "1 file stored" in site.fill(f"{source.url}/tiny.gguf", **place)
    assert (web.directory / "www/writable" / SHA256).read_bytes() == WEIGHTS
    assert "1 there already" in site.fill(f"{source.url}/tiny.gguf", **place)
    found = site.obtained(f"{NOWHERE}/tiny.gguf", **place)
    assert web.requests[1:] == ["GET 404", "HEAD 404", "PUT 201", "HEAD 200", "GET 200"]
    for said in (missing, found):
        assert KEY not in said and ID not in said
    _nowhere(site, KEY)


def test_wrong_password_is_named_and_the_source_is_used(
    site: Site, source: FileServer, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_KEY", "another")
    place = {"model_store_location": f"{web.url}/writable", **SECRETS}
    assert "the model store answered 401 for" in site.obtained(f"{source.url}/t.gguf", **place)
    # Before anything is downloaded.
    said = site.fill(f"{NOWHERE}/t.gguf", **place)
    assert "answered 401 to HEAD; check model_store_key_id" in said


def test_web_server_that_is_only_read_is_filled_by_a_directory(
    site: Site, source: FileServer, web: Web
) -> None:
    place = {"model_store_location": f"{web.url}/open/"}
    assert "answered 405 to PUT; let it accept PUT, or" in site.fill(
        f"{source.url}/t.gguf", **place
    )
    to = web.directory / "www/open"
    assert "1 file stored" in site.fill(f"{source.url}/t.gguf", "--to", str(to), **place)
    site.obtained(f"{NOWHERE}/t.gguf", **place)
    nowhere = site.fill(f"{source.url}/t.gguf", "--to", "/nowhere", **place)
    assert "/nowhere is not a directory of this machine" in nowhere


def test_store_that_does_not_answer_is_named(site: Site, source: FileServer) -> None:
    place = {"model_store_location": f"{NOWHERE}/w"}
    said = site.obtained(f"{source.url}/tiny.gguf", **place)
    assert f"the model store does not answer at {NOWHERE}/w/{SHA256}: curl: (7)" in said
    assert "127.0.0.1 does not answer: Connection refused" in site.fill(
        f"{source.url}/tiny.gguf", **place
    )


@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize("left", [WEIGHTS[:1000], WEIGHTS, b"of something else"])
def test_interrupted_transfer_from_the_store_is_continued(
    site: Site, left: bytes, resumable: bool
) -> None:
    site.uploads.mkdir()
    (site.uploads / f"{SHA256}.stored").write_bytes(left)
    with file_server("127.0.0.1", WEIGHTS, resumable=resumable) as server:
        ran = site.deploy(f"{NOWHERE}/t.gguf", model_store_location=server.url)
    assert ran.returncode == 0 and site.baked.read_bytes() == WEIGHTS, ran.stderr
    resumes = resumable and left == WEIGHTS[:1000]
    assert server.ranges[:1] == ([] if left == WEIGHTS else [f"bytes={len(left)}-"])
    assert (len(server.ranges) == 1) == resumes or left == WEIGHTS


def test_bucket_is_filled_and_asked(site: Site, source: FileServer, s3: str) -> None:
    place = bucket(s3)
    missing = site.obtained(f"{source.url}/tiny.gguf", **place)
    assert f"{s3}/models/llm/{SHA256}" in missing and MISSING in missing
    assert "1 file stored" in site.fill(f"{source.url}/tiny.gguf", **place)
    object_ = httpx.get(f"{s3}/models/llm/{SHA256}", headers=_account())
    assert object_.raise_for_status().content == WEIGHTS
    assert "1 there already" in site.fill(f"{source.url}/tiny.gguf", **place)
    found = site.obtained(f"{NOWHERE}/tiny.gguf", **place)
    for said in (missing, found):
        assert KEY not in said and "X-Amz-Signature" not in said
    _nowhere(site, KEY)
    _nowhere(site, "X-Amz-Signature")


def test_bucket_that_does_not_exist_is_named(site: Site, source: FileServer, s3: str) -> None:
    place = {**bucket(s3), "model_store_location": "s3://other-models"}
    said = site.fill(f"{source.url}/tiny.gguf", **place)
    assert "answered 404 NoSuchBucket to PUT; check model_store_location" in said


def test_large_file_gets_into_a_bucket_in_parts(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmhost.cli import store_client

    monkeypatch.setattr(store_client, "_PART", 5 * 2**20)
    store, file = _store(s3), tmp_path / "large"
    file.write_bytes(os.urandom(11 * 2**20 + 7))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    with store_client.client() as http:
        opened = store_client.opened(store, None, http)
        opened.put(sha256, file)
        assert opened.size(sha256) == file.stat().st_size
    answer = httpx.get(f"{s3}/models/llm/{sha256}", headers=_account())
    assert answer.content == file.read_bytes()
    assert answer.headers["ETag"].endswith('-3"')  # of three parts


def _store(url: str) -> ModelStore:
    place = bucket(url)
    return ModelStore(**{name.removeprefix("model_store_"): place[name] for name in place})


_BOTOCORE = """
import json, sys
from datetime import datetime, timezone
import botocore.auth
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

method, url, query, id, key, region, seconds, now = json.load(sys.stdin)
when = datetime.fromisoformat(now)
botocore.auth.get_current_datetime = lambda remove_tzinfo=True: when.replace(tzinfo=None)
request = AWSRequest(method, url, params=query)
S3SigV4QueryAuth(Credentials(id, key), "s3", region, expires=seconds).add_auth(request)
print(request.url)
"""


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("GET", {}),
        ("HEAD", {}),
        ("POST", {"uploads": ""}),
        ("PUT", {"partNumber": "12", "uploadId": "a/b+c d~e="}),
    ],
)
@pytest.mark.parametrize("endpoint", ["http://minio:9000", "https://[2001:db8::1]:443/s3"])
def test_signatures_are_those_of_botocore(method: str, query: Data, endpoint: str) -> None:
    store = _store(endpoint)
    now = datetime(2026, 11, 30, 12, 0, 5, tzinfo=UTC)
    secrets = credentials(store)
    assert secrets
    own = httpx.URL(signed(store, secrets, method, SHA256, now, query))
    asked = [method, f"{endpoint}/models/llm/{SHA256}", query, ID, KEY, "us-east-1", 12 * 3600]
    python = environments.installed("moto") / "bin/python"
    ran = subprocess.run(
        [python, "-c", _BOTOCORE],
        input=json.dumps([*asked, now.isoformat()]),
        capture_output=True,
        text=True,
    )
    assert not ran.returncode, ran.stderr
    assert own.params == httpx.URL(ran.stdout.strip()).params


def test_secrets_are_in_no_process_list(site: Site) -> None:
    with (
        file_server("127.0.0.1", WEIGHTS, seconds=3) as server,
        ThreadPoolExecutor() as pool,
    ):
        deployed = pool.submit(site.obtained, f"{NOWHERE}/tiny.gguf", **bucket(server.url))
        seen: set[str] = set()
        while not deployed.done():
            seen |= {*_commands()}
            time.sleep(0.05)
        deployed.result()
    assert any("--config" in each and f"{SHA256}.stored" in each for each in seen)
    assert not [each for each in seen if "X-Amz" in each or KEY in each or ID in each]


def _commands() -> Iterator[str]:
    """Arguments of curl and of shells."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name = (process / "comm").read_text().strip()
            if name in ("curl", "sh"):
                yield (process / "cmdline").read_bytes().decode(errors="replace")


def _nowhere(site: Site, text: str) -> None:
    found = subprocess.run(
        ["grep", "-rlF", text, site.uploads, site.directory / "root"], capture_output=True
    )
    assert found.stdout == b""
