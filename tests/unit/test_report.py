"""What verify found, and its page: nothing is lost, and nothing that a host says becomes markup."""

from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llmhost.cli import report as cli_report
from llmhost.cli import verify
from llmhost.status.page import Overview
from llmhost.status.page import verdict as overview_verdict
from llmhost.units import duration, gib
from llmhost.verify.page import page, verdict
from llmhost.verify.report import (
    ON_A_DOUBLE,
    ON_HARDWARE,
    ON_THE_SERVER,
    Asked,
    Check,
    Extent,
    LastDeploy,
    MemoryUse,
    Outcome,
    Record,
    Report,
    ReportedGpu,
    Server,
    Started,
    line,
    parse,
    redacted,
)

GIB = 1024**3
HOSTILE = """</pre></style><script>alert(1)</script><img src=x onerror="alert(1)">'"`&{{ 7 * 7 }}"""


def check(outcome: Outcome = "passed", **fields: str) -> Check:
    told = {"host": "llm", "component": "docker", "id": "docker.it-runs", "sentence": "it runs"}
    return Check(**{**told, "outcome": outcome, **fields})  # type: ignore[arg-type]


def report(
    *checks: Check, servers: tuple[Server, ...] = (Server("llm"),), **fields: object
) -> Report:
    plans = [
        {"host": each.host, "status": "converged", "steps": [], "errors": []} for each in servers
    ]
    about: dict[str, object] = {"inventory": "inventory/site.py", "begun": "2026-11-21 12:00 UTC"}
    about |= {"seconds": 1.0, "toolkit": "0.1.0", "plans": plans, **fields}
    return Report(servers=servers, checks=checks, **about)  # type: ignore[arg-type]


GPU = ReportedGpu(
    0, "RTX 4090", "GPU-1", 24 * GIB, 10 * GIB, 5, (MemoryUse("llmhost-vllm-1", 9 * GIB),)
)


@pytest.mark.parametrize(
    "record",
    [
        check("failed", seen="a\nb", asked=(Asked("llm", "id -u", 1, "no"),)),  # type: ignore[arg-type]
        Server(
            "llm", gpus=(GPU,), last_deploy=LastDeploy("2026-11-21T12:00:00+00:00", "1", "", True)
        ),
        Server("far", answers=False, problem="no route"),
        Started("llm", "docker", "it runs"),
        Extent(97),
    ],
)
def test_record_survives_its_line(record: Record) -> None:
    text = line(record)
    assert text.count("\n") == 1 and parse(text) == record


def test_keys_are_not_in_records() -> None:
    key = "llmhost-" + "a" * 64
    assert redacted(f"Bearer {key} and s3cret", ["s3cret", ""]) == "Bearer [key] and [key]"


class _Tags(HTMLParser):
    """Every tag of a page, and attributes that run code or load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.suspicious: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.suspicious += [
            key for key, _ in attributes if key in ("src", "href") or key[:2] == "on"
        ]


def test_nothing_that_a_server_says_becomes_markup() -> None:
    hostile = Server(
        host=HOSTILE,
        system=HOSTILE,
        kernel=HOSTILE,
        driver=HOSTILE,
        gpus=(ReportedGpu(0, HOSTILE, HOSTILE, 24 * GIB, GIB, 1, (MemoryUse(HOSTILE, GIB // 2),)),),
        last_deploy=LastDeploy(HOSTILE, HOSTILE, HOSTILE, False),
    )
    silent = Server("far", answers=False, problem=HOSTILE)
    texts = ("id", "sentence", "seen", "expected", "todo", "trace", "reason", "component")
    failed = check("failed", host=HOSTILE, **dict.fromkeys(texts, HOSTILE))
    skipped = check("not checked", host=HOSTILE, reason=HOSTILE)
    asked = check(host=HOSTILE, asked=(Asked(HOSTILE, HOSTILE, 1, HOSTILE),))  # type: ignore[arg-type]
    step = {"component": HOSTILE, "operation": HOSTILE, "reasons": [HOSTILE]}
    plan = {"host": HOSTILE, "status": "drift", "steps": [step], "errors": [HOSTILE]}
    hostile_report = report(
        *(failed, skipped, asked),
        servers=(hostile, silent),
        plans=[plan],
        inventory=HOSTILE,
        plan_problem=HOSTILE,
    )
    found = _Tags(page(hostile_report))
    assert {"script", "img", "a", "link", "iframe"} & set(found.tags) == set()
    assert found.suspicious == []
    assert "49" not in page(report(check(sentence="{{ 7 * 7 }}"), plans=None))


def test_page_needs_nothing_but_itself() -> None:
    text = page(report(check("failed"), servers=(Server("llm", gpus=(GPU,)),)))
    assert "default-src 'none'" in text
    assert "http://" not in text and "https://" not in text and "url(" not in text


def test_failed_check_tells_what_was_seen_what_was_expected_and_what_to_do() -> None:
    fields = {
        "id": "docker.it-runs",
        "seen": "inactive",
        "expected": "active",
        "todo": "Deploy `it`.",
    }
    text = page(report(check("failed", **fields)))
    for said in ("docker.it-runs", "inactive", "active", "Deploy <code>it</code>."):
        assert said in text


def test_memory_of_a_gpu_is_shown_by_who_holds_it() -> None:
    text = page(report(check(), servers=(Server("llm", gpus=(GPU,)),)))
    assert "10.0 GiB of 24.0 GiB" in text
    assert 'style="width:37.50%"' in text and "llmhost-vllm-1 <b>9.0 GiB</b>" in text
    assert 'style="width:4.17%"' in text and "other <b>1.0 GiB</b>" in text


@pytest.mark.parametrize(
    ("size", "told"),
    [(None, "–"), (0, "0.0 GiB"), (24 << 20, "24 MiB"), (3 * GIB // 2, "1.5 GiB")],
)
def test_sizes_are_told_in_fitting_units(size: int | None, told: str) -> None:
    assert gib(size) == told


def test_server_without_gpu_says_so() -> None:
    assert "no GPU" in page(report(check()))


def test_passed_checks_are_told_apart_by_what_they_are_worth() -> None:
    checks = [
        check(proof=proof) for proof in (ON_HARDWARE, ON_THE_SERVER, ON_THE_SERVER, ON_A_DOUBLE)
    ]
    assert dict(report(*checks).proofs) == {ON_HARDWARE: 1, ON_THE_SERVER: 2, ON_A_DOUBLE: 1}


DRIFT = [{"host": "llm", "status": "drift", "steps": [], "errors": []}]


@pytest.mark.parametrize(
    ("found", "grade"),
    [
        (report(check()), "good"),
        (report(check(), check("failed")), "bad"),
        (report(check(), plans=DRIFT), "warn"),
        (report(), "bad"),
        (report(check(), servers=(Server("llm"), Server("far", answers=False))), "bad"),
        (report(check("not checked")), "bad"),
        (report(check(), plans=None), "warn"),
        (report(check(), succeeded=False), "bad"),
        (report(check(), succeeded=False, unended=frozenset({"llm"})), "bad"),
    ],
)
def test_verdict_is_no_better_than_its_worst_part(found: Report, grade: str) -> None:
    assert verdict(found)[0] == grade


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.04, "0.0 s"),
        (59, "59 s"),
        (300, "5 min"),
        (7_300, "2 h"),
        (200_000, "2 days"),
        (None, ""),
    ],
)
def test_durations_are_told_in_fitting_units(seconds: float | None, told: str) -> None:
    assert duration(seconds) == told


def test_page_of_checks_that_were_killed_does_not_praise_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As by a lack of memory; a line may be written in part."""

    def killed(*arguments: object) -> int:
        begun = Started("llm", "gateway", "strangers are refused")
        written: list[Record] = [Server("llm"), Started("llm", "docker", "it runs"), check(), begun]
        records = next(each for each in arguments if isinstance(each, Path))
        records.write_text("".join(map(line, written)) + '{"kind": "che')
        return -9

    monkeypatch.setattr(verify, "run_server_tests", killed)
    monkeypatch.setattr(cli_report, "_plans", lambda _: {"plans": report().plans})
    run = cli_report.Run("site.py", [], datetime.now(UTC))
    assert not verify._verify([], [], {}, [], run, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "The server is as declared" not in text and "its checks did not end" in text


def test_overview_of_checks_that_were_killed_is_not_fine() -> None:
    host = {"host": "llm", "status": "fine"}
    plan = {"host": "llm", "status": "converged"}
    for killed in (
        report(check(), succeeded=False),
        report(check(), succeeded=False, unended=frozenset({"llm"})),
    ):
        found = Overview("site.py", "", "", [host], [plan], checks=killed)
        assert found.failed and overview_verdict(found)[0] == "bad"
    assert not Overview("site.py", "", "", [host], [plan], checks=report(check())).failed
