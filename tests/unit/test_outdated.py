"""`llmhost outdated`: which tags and packages are newer, and what is said of them."""

import base64
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmhost.cli.registry import Registries, RegistryError
from llmhost.docs.schemas import schema
from llmhost.inventory.site import SiteHost
from llmhost.inventory.site_reader import HostData, no_rules, no_site_rules, read_site
from llmhost.outdated import report as words
from llmhost.outdated.images import Reference, newest, parse
from llmhost.outdated.report import (
    HostPackages,
    OutdatedReport,
    host_findings,
    lists_note,
    newer_release,
    packages_of,
    stack_changes,
)
from llmhost.resources import script

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("reference", "parsed"),
    [
        ("ollama/ollama:0.31.1", Reference("docker.io", "ollama/ollama", "0.31.1", "")),
        ("redis:8.2", Reference("docker.io", "library/redis", "8.2", "")),
        (
            f"ghcr.io/ggml-org/llama.cpp:server-b11176@{DIGEST}",
            Reference("ghcr.io", "ggml-org/llama.cpp", "server-b11176", DIGEST),
        ),
        (f"10.0.0.1:5000/a/b@{DIGEST}", Reference("10.0.0.1:5000", "a/b", "", DIGEST)),
        ("localhost/a:1", Reference("localhost", "a", "1", "")),
        ("docker.io/qdrant/qdrant:v1", Reference("docker.io", "qdrant/qdrant", "v1", "")),
    ],
)
def test_references_are_read_as_docker_reads_them(reference: str, parsed: Reference) -> None:
    assert parse(reference) == parsed


@pytest.mark.parametrize(
    ("tag", "tags", "latest"),
    [
        # As the registries list them.
        ("0.31.1", ["latest", "0.32.0-rc1", "0.9.9", "0.32.0", "0.32.0-rocm"], "0.32.0"),
        (
            "server-b11176",
            ["server-b11200", "server-cuda-b11300", "server", "full-b1"],
            "server-b11200",
        ),
        ("v0.10.2", ["v0.10.10", "v0.9.9", "v0.11.0rc1", "0.10.11"], "v0.10.10"),
        ("v1.2", ["v1.3.0", "v1"], ""),
        ("latest", ["1.0", "latest"], ""),
        ("2.0", ["1.9", "2.0"], ""),
    ],
)
def test_newer_tag_is_of_the_same_kind(tag: str, tags: list[str], latest: str) -> None:
    assert newest(tag, tags) == latest


@pytest.mark.parametrize(
    ("offered", "newer"),
    [
        (["0.3.0", "0.2.1", "0.2.0"], "0.3.0"),
        (["0.10.0", "0.9.0"], "0.10.0"),
        (["0.3.0rc1", "0.2.0"], ""),
        (["0.1.0"], ""),
    ],
)
def test_newer_release_of_llmhost(offered: list[str], newer: str) -> None:
    assert newer_release("0.2.0", offered) == newer


def test_packages_of_this_machine_are_read_from_apt() -> None:
    ran = subprocess.run(
        ["sh", "-c", script("outdated/packages.sh", "bash", "adduse*", "no-such-package")],
        capture_output=True,
        text=True,
        check=True,
    )
    found = packages_of(ran.stdout)
    assert {*found.versions} == {"bash", "adduser"}
    for name, (installed, _) in found.versions.items():
        shown = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", name], capture_output=True, text=True
        )
        assert installed == shown.stdout


def host(**data: Any) -> SiteHost:
    whole = HostData("llm", {"services": ["llamacpp"], **data}, ["llm_servers"])
    return read_site([whole], rules=no_rules, site_rules=no_site_rules)["llm"]


def test_newer_packages_are_named_once_for_each_kind_with_known_holes() -> None:
    versions = {
        "nvidia-driver-580": ("580.95.05-1", "580.159.04-1"),
        "nvidia-driver-580-x": ("580.95.05-1", "580.159.04-1"),
        "nvidia-container-toolkit": ("1.19.1-1", "1.19.1-1"),
        "docker.io": ("28.5", "28.6"),
        "bash": ("1", "2"),
    }
    found = HostPackages(versions, "580.95.05", NOW, frozenset({"docker.io", "bash"}))
    docker, driver = host_findings(host(), found, NOW.date())
    assert (driver.kind, driver.latest) == ("driver", "580.159.04-1")
    assert re.match(r"driver 580.95.05 has known vulnerabilities: 580", driver.security)
    assert (docker.name, docker.current, docker.latest) == ("docker.io", "28.5", "28.6")
    assert docker.changes == ("llm: containers restart (llamacpp)",)
    assert docker.security == "28.6 is a security update of the distribution"


def test_toolkit_with_a_known_hole_is_named() -> None:
    versions = {"nvidia-container-toolkit": ("1.18.2-1", "1.18.2-1")}
    [toolkit] = host_findings(host(), HostPackages(versions, "", NOW), NOW.date())
    assert (toolkit.current, toolkit.latest) == ("1.18.2-1", "")
    assert "CVE-2026-24260" in toolkit.security


# As apt-cache 2.6 of Debian 12 prints it.
POLICY = """\
docker.io:
  Installed: 20.10.24+dfsg1-1+b3
  Candidate: 20.10.24+dfsg1-1+deb12u1
  Version table:
     20.10.24+dfsg1-1+deb12u1 500
        500 http://packages.example.org/debian-security bookworm-security/main amd64 Packages
 *** 20.10.24+dfsg1-1+b3 100
        100 /var/lib/dpkg/status
containerd:
  Installed: 1.6.20~ds1-1+b1
  Candidate: 1.6.24~ds1-1
  Version table:
     1.6.24~ds1-1 500
        500 http://packages.example.org/debian bookworm/main amd64 Packages
 *** 1.6.20~ds1-1+b1 100
        500 http://packages.example.org/debian-security bookworm-security/main amd64 Packages
        100 /var/lib/dpkg/status
=driver 580.95.05
=lists 1764547200
"""


def test_only_a_candidate_from_a_security_archive_is_a_security_update() -> None:
    found = packages_of(POLICY)
    assert found.versions["containerd"] == ("1.6.20~ds1-1+b1", "1.6.24~ds1-1")
    assert (found.security, found.driver) == (frozenset({"docker.io"}), "580.95.05")
    assert found.lists == datetime(2025, 12, 1, tzinfo=UTC)


def test_known_holes_are_named_without_a_newer_package() -> None:
    [only] = host_findings(host(), HostPackages({}, "580.95.05", NOW), date(2026, 12, 1))
    assert (only.current, only.latest) == ("580.95.05", "") and only.security
    newest_known = HostPackages({}, "620.99.99", NOW)
    assert not [*host_findings(host(), newest_known, date(2026, 12, 1))]


def test_old_package_lists_are_named() -> None:
    assert lists_note("a", HostPackages({}, "", NOW - timedelta(hours=30)), NOW) == ""
    old = lists_note("a", HostPackages({}, "", NOW - timedelta(days=9)), NOW)
    assert old == "a: its package lists are 9 days old: apt-get update"
    assert "no package lists" in lists_note("a", HostPackages({}), NOW)


def test_changes_are_named_as_plan_names_them() -> None:
    changes = stack_changes([("a", "llamacpp"), ("a", "embeddings"), ("b", "llamacpp")])
    assert changes[0].startswith("a: Stack | Bake") and changes[0].endswith(
        "(llamacpp, embeddings)"
    )
    assert len(changes) == 4
    tasks = "".join(file.read_text() for file in (ROOT / "tasks").glob("*.py"))
    for step in (words.BAKE, words.RUN, words.DRIVER, words.TOOLKIT):
        component, _, name = step.partition(" | ")
        assert f'@component("{component}")' in tasks and f'name="{name}"' in tasks


def test_schema_of_the_output_is_documented() -> None:
    described = json.loads((ROOT / "docs/outdated.schema.json").read_text())
    assert described == schema(OutdatedReport)


@contextmanager
def token_registry(login: str = "") -> Iterator[str]:
    """A double of a registry with tokens and pages of tags, as ghcr.io and Docker Hub have them.

    https://distribution.github.io/distribution/spec/auth/token/
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = f"http://{self.headers['Host']}"
            if self.path.startswith("/token"):
                basic = base64.b64encode(login.encode()).decode()
                if login and self.headers.get("Authorization") != f"Basic {basic}":
                    return self._answer(401, {})
                assert "scope=repository%3Aa%2Fb%3Apull" in self.path, self.path
                return self._answer(200, {"token": "good"})
            if self.headers.get("Authorization") != "Bearer good":
                challenge = f'Bearer realm="{place}/token",service="x",scope="repository:a/b:pull"'
                return self._answer(401, {}, {"WWW-Authenticate": challenge})
            if "last=" in self.path:
                return self._answer(200, {"tags": ["v1.3"]})
            link = {"Link": '</v2/a/b/tags/list?n=1000&last=v1.2>; rel="next"'}
            return self._answer(200, {"tags": ["v1.1", "v1.2"]}, link)

        def _answer(self, status: int, body: Any, headers: Any = None) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_tokens_and_pages_of_a_registry() -> None:
    with token_registry() as name, Registries({name}) as registries:
        assert registries.tags(parse(f"{name}/a/b:v1.1")) == ["v1.1", "v1.2", "v1.3"]


@pytest.mark.parametrize("body", ["[]", '{"tags": 5}', '{"tags": {"v1": 1}}', "[" * 100_000])
def test_registry_that_answers_otherwise_is_a_sentence(body: str) -> None:
    registries = Registries()
    answer = httpx.Response(200, text=body)
    registries._http = httpx.Client(transport=httpx.MockTransport(lambda _request: answer))
    with registries, pytest.raises(RegistryError, match="the answer is not that of a registry"):
        registries.tags(parse("registry.example/a/b:v1"))


@pytest.mark.parametrize("body", ['{"manifests": ["a"]}', "{}", '{"manifests": null}'])
def test_manifests_in_another_shape_are_not_the_pinned_one(body: str) -> None:
    registries = Registries()
    answer = httpx.Response(200, text=body)
    registries._http = httpx.Client(transport=httpx.MockTransport(lambda _request: answer))
    with registries:
        assert not registries.is_current(parse(f"registry.example/a/b:v1@sha256:{'1' * 64}"))


def test_login_of_docker_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with token_registry("me:secret") as name:
        image = parse(f"{name}/a/b:v1.1")
        with Registries({name}) as registries, pytest.raises(RegistryError, match="gave no token"):
            registries.tags(image)
        (tmp_path / ".docker").mkdir()
        auth = base64.b64encode(b"me:secret").decode()
        config = {"auths": {name: {"auth": auth}}}
        (tmp_path / ".docker/config.json").write_text(json.dumps(config))
        with Registries({name}) as registries:
            assert "v1.3" in registries.tags(image)
