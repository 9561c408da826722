"""`llmhost bench`: figures of known answers, and the comparison of two runs."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import jsonschema_rs
import pytest
from PIL import Image

from llmhost.bench.client import Load, measure, sample
from llmhost.bench.plot import MISSING, can_plot, plot
from llmhost.bench.report import (
    BenchReport,
    Goal,
    Level,
    Sample,
    changes,
    incomparable,
    level,
    parsed,
)
from llmhost.docs.schemas import schema

ROOT = Path(__file__).parents[2]
LLMHOST = Path(sys.executable).with_name("llmhost")
GOAL = Goal(first_token_seconds=1.0, between_tokens_seconds=0.1)
SAMPLES = [
    Sample(first_seconds=0.5, last_seconds=1.5, tokens=11),  # 0.1 s between two
    Sample(first_seconds=2.0, last_seconds=2.5, tokens=11),  # late
    Sample(first_seconds=0.25, last_seconds=2.25, tokens=11),  # slow
    Sample(first_seconds=0.25, last_seconds=0.25, tokens=1),
    Sample(error="429 tokens_used"),
    Sample(error="429 tokens_used"),
    Sample(error="timed out"),
]
LOAD = Load("/v1/chat/completions", "m", prompt_words=5, max_tokens=8)


def report(*levels: Level) -> BenchReport:
    return BenchReport(1, "llm-1", "2026-11-29T00:00:00Z", "0.2.0", 200, 128, GOAL, levels)


def test_figures_of_known_answers() -> None:
    found = level("m", 2, 4.0, SAMPLES, GOAL)
    assert (found.requests, found.failed, found.tokens) == (7, 3, 34)
    assert found.errors == {"429 tokens_used": 2, "timed out": 1}
    assert (found.tokens_per_second, found.goodput_per_second) == (8.5, 0.5)
    assert (found.first_token_p50_seconds, found.first_token_p95_seconds) == (0.25, 2.0)
    assert (found.between_tokens_p50_seconds, found.between_tokens_p95_seconds) == (0.1, 0.2)


def test_level_without_an_answer_has_no_times() -> None:
    found = level("m", 1, 1.0, SAMPLES[4:], GOAL)
    assert found.first_token_p50_seconds is found.between_tokens_p95_seconds is None
    assert (found.failed, found.tokens_per_second, found.goodput_per_second) == (3, 0, 0)


def test_change_is_a_share_of_the_same_level() -> None:
    before = level("m", 2, 4.0, SAMPLES, GOAL)
    now = replace(before, tokens_per_second=17.0, first_token_p95_seconds=1.0)
    found = changes(now, report(before))
    assert (found["tokens_per_second"], found["first_token_p95_seconds"]) == (1.0, -0.5)
    assert changes(replace(now, concurrency=4), report(before)) == {}
    assert changes(replace(now, model="other"), report(before)) == {}


def test_reports_of_other_requests_are_not_compared() -> None:
    other = replace(report(), max_tokens=64, goal=Goal(1.0, 0.2))
    assert [each.split()[0] for each in incomparable(other, report())] == ["max_tokens", "goal"]
    assert incomparable(replace(report(), version="9"), report()) == []


def test_output_is_read_again_and_its_schema_is_documented() -> None:
    found = report(level("m", 2, 4.0, SAMPLES, GOAL))
    text = json.dumps(asdict(found))
    assert parsed(text) == found
    described = json.loads((ROOT / "docs/bench.schema.json").read_text())
    assert described == schema(BenchReport)
    validator = jsonschema_rs.validator_for(described)
    validator.validate(json.loads(text))
    assert not validator.is_valid(json.loads(text.replace('"tokens": 34', '"tokens": "many"')))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema": 9}'])
def test_other_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"llmhost bench --json|has the schema 9"):
        parsed(text)


def answering(answer: httpx.Response) -> httpx.Client:
    transport = httpx.MockTransport(lambda _request: answer)
    return httpx.Client(base_url="http://gateway", transport=transport)


EVENT = 'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
USAGE = 'data: {"choices":[],"usage":{"completion_tokens":9}}\n\n'


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (EVENT * 3 + USAGE + "data: [DONE]\n\n", 9),
        (EVENT * 3, 3),
        ('data: {"choices":[{"delta":{"reasoning_content":"a"}}],"usage":null}\n\n', 1),
        (": comment\n\ndata: nonsense\n\ndata: []\n\n" + EVENT, 1),
    ],
)
def test_tokens_are_the_engine_s_or_the_events(text: str, tokens: int) -> None:
    found = sample(answering(httpx.Response(200, text=text)), LOAD, 0)
    assert (found.tokens, found.error) == (tokens, "") and found.first_seconds > 0


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (429, '{"error":{"code":"tokens_used"}}', "429 tokens_used"),
        (502, "<html>", "502"),
        (200, "data: [DONE]\n\n", "an answer without a token"),
    ],
)
def test_refusal_is_an_error_with_its_reason(status: int, text: str, error: str) -> None:
    assert sample(answering(httpx.Response(status, text=text)), LOAD, 0).error == error


def test_every_request_is_sent_once_and_begins_otherwise() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content)["messages"][0]["content"])
        return httpx.Response(200, text=EVENT)

    with httpx.Client(base_url="http://x", transport=httpx.MockTransport(answer)) as client:
        _, samples = measure(client, LOAD, 4, 20, 100)
    assert len(samples) == 20 and len({text[:4] for text in seen}) == 20


MODEL = {"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere is not a host with a gateway; the inventory has: llm-1"),
        (["llm-1", "--model", "x"], "x is not a role that generates text; llm-1 has: m"),
        (["llm-1", "--key", "env:NOT_SET"], "--key refers to the environment variable NOT_SET"),
        (["llm-1", "--key", "env:HOME", "--concurrency", "1,no"], "--concurrency 1,no is not a"),
        (["llm-1", "--compare", "/nowhere.json"], "/nowhere.json: No such file"),
    ],
)
def test_mistake_is_one_sentence(tmp_path: Path, words: list[str], sentence: str) -> None:
    data = {"services": ["llamacpp"], "models": [MODEL], "gateway_tls": "off"}
    data["api_clients"] = [{"name": "app", "sha256": "cd" * 32}]
    (tmp_path / "site.py").write_text(f"hosts = [('llm-1', {data!r})]\n")
    command = [str(LLMHOST), "bench", str(tmp_path / "site.py"), *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode in (1, 2) and ran.stderr.startswith(f"error: {sentence}"), ran.stderr


def two_levels(model: str, factor: float) -> tuple[Level, ...]:
    one = level(model, 1, 4.0, SAMPLES, GOAL)
    return one, replace(one, concurrency=4, tokens_per_second=factor * one.tokens_per_second)


def test_plot_is_a_picture_with_a_line_for_each_model_and_run(tmp_path: Path) -> None:
    now = report(*two_levels("coder", 3), *two_levels("router", 2))
    bare, both = tmp_path / "bare.png", tmp_path / "both.png"
    plot(report(), None, bare)
    plot(now, report(*two_levels("coder", 1)), both)
    colors = []
    for file in (bare, both):
        with Image.open(file) as picture:
            assert (picture.format, picture.size) == ("PNG", (1440, 504))
            colors.append({color for _, color in picture.convert("RGB").getcolors(1 << 20) or ()})
    blue, orange = (31, 119, 180), (255, 127, 14)  # matplotlib's first two colors
    assert {blue, orange} <= colors[1] and not {blue, orange} & colors[0]
    assert not [*tmp_path.glob(".*")]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("bench.jpg", "is not a PNG file; write a name such as bench.png"),
        ("missing/bench.png", "cannot be written: the directory"),
    ],
)
def test_plot_that_could_not_be_written_is_refused_before_the_measurement(
    tmp_path: Path, name: str, sentence: str
) -> None:
    (tmp_path / "site.py").write_text("raise SystemExit('was read')\n")
    command = [str(LLMHOST), "bench", str(tmp_path / "site.py"), "llm-1"]
    ran = subprocess.run([*command, "--plot", str(tmp_path / name)], capture_output=True, text=True)
    assert ran.returncode == 1 and sentence in ran.stderr and "was read" not in ran.stderr


def test_missing_matplotlib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_plot()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not can_plot()
    assert MISSING == "--plot needs matplotlib; install it with: pip install 'llmhost[plot]'"
