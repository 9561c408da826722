"""Known vulnerabilities of engines: the question to OSV, and what is said of its answer."""

from typing import Any

import httpx
import pytest

from llmhost.cli.outdated import _Results, _vulnerabilities
from llmhost.outdated.advisories import PACKAGES, query_of, sentence
from llmhost.outdated.images import parse
from llmhost.services import catalogue
from tests.doubles.osv import osv, record

VLLM = ("PyPI", "vllm")
USES = [("llm-1", "vllm")]
IMAGE = parse("vllm/vllm-openai:v0.26.0@sha256:" + "1" * 64)


def test_only_engines_that_exist_are_asked_about() -> None:
    assert {*PACKAGES} <= {*catalogue()}
    for service in PACKAGES:
        tag = parse(str(catalogue()[service].options.model_validate({}).image)).tag
        assert query_of(service, tag), f"OSV is never asked about {service}, with the tag {tag}"


@pytest.mark.parametrize(
    ("service", "tag", "version"),
    [
        ("vllm", "v0.26.0", "0.26.0"),
        ("vllm", "v0.26.0-cu129", "0.26.0"),
        ("vllm", "v0.27.0rc1", None),
        ("vllm", "nightly", None),
        ("open_webui", "main", None),
        ("ollama", "0.31.1", "0.31.1"),
        ("llamacpp", "server-cuda-b11176", None),
    ],
)
def test_version_is_read_from_the_tag(service: str, tag: str, version: str | None) -> None:
    query = query_of(service, tag)
    assert (query and query["version"]) == version


def test_most_severe_are_named_first_with_the_fix() -> None:
    query = query_of("vllm", "v0.26.0")
    assert query
    found = [
        record("GHSA-low", VLLM, "0.27.0", "LOW"),
        record("GHSA-a", VLLM, severity="HIGH", aliases=["CVE-2026-2", "PYSEC-1"]),
        record("PYSEC-1", VLLM, "0.26.1", aliases=["CVE-2026-9"]),
        record("GHSA-b", VLLM, "0.28.0", "CRITICAL", aliases=["CVE-2026-1"]),
        record("GHSA-gone", VLLM, severity="CRITICAL", withdrawn="2026-11-02T00:00:00Z"),
    ]
    assert sentence(query, found) == (
        "known vulnerabilities: CVE-2026-1 (critical, fixed in 0.28.0), "
        "CVE-2026-2 (high, no fix known), GHSA-low (low, fixed in 0.27.0) and 1 more; "
        "see https://osv.dev/list?ecosystem=PyPI&q=vllm"
    )
    assert sentence(query, []) == ""


def test_fixes_of_other_packages_and_older_branches_do_not_count() -> None:
    query = query_of("vllm", "v0.26.0")
    other: dict[str, Any] = record("GHSA-a", ("PyPI", "other"), "9.0")
    own = record("GHSA-a", VLLM, "0.10.5", "HIGH")
    own["affected"] += other["affected"]
    assert query and "GHSA-a (high, no fix known)" in sentence(query, [own])


def test_all_pages_are_read() -> None:
    results = _Results()
    with osv() as served:
        served.records["PyPI", "vllm", "0.26.0"] = [record(f"GHSA-{n}", VLLM) for n in range(5)]
        known = _vulnerabilities(IMAGE, USES, served.url, results)
        assert "GHSA-0 (" in known and "and 2 more" in known
        assert len(served.asked) == 5 and results.unreachable == {}
        assert _vulnerabilities(IMAGE, USES, None, results) == ""
        assert len(served.asked) == 5


def test_database_that_fails_is_named() -> None:
    results = _Results()
    with osv() as served:
        served.status = 503
        assert _vulnerabilities(IMAGE, USES, served.url, results) == ""
        assert results.unreachable == {served.url: "answered 503"}
    assert _vulnerabilities(IMAGE, USES, served.url, results) == ""
    assert results.unreachable[served.url].startswith("has no answer: ")


@pytest.mark.parametrize(
    "body", ["[]", '{"vulns": null}', '{"vulns": ["GHSA-a"]}', '{"vulns": [{}]}', "[" * 100_000]
)
def test_database_that_answers_otherwise_is_named(
    body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def post(url: str, **_: Any) -> httpx.Response:
        return httpx.Response(200, text=body, request=httpx.Request("POST", url))

    monkeypatch.setattr(httpx, "post", post)
    results = _Results()
    assert _vulnerabilities(IMAGE, USES, "https://osv.example", results) == ""
    assert results.unreachable == {"https://osv.example": "does not answer as OSV does"}
