"""`llmhost compare` and `llmhost promote`.

The gateway here is a server of this test that answers as an engine does; the real engines answer in
tests/integration/test_making.py.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from llmhost.bench.client import Load, sample
from llmhost.bench.report import Sample
from llmhost.bench.side_by_side import Answer, Asked, CompareReport, ask, page
from llmhost.cli import compare
from llmhost.docs.schemas import schema
from llmhost.gateway.python_source import EditError
from llmhost.inventory.model_names import exchanged
from llmhost.inventory.reader import read_settings

LLMHOST = str(Path(sys.executable).with_name("llmhost"))
MODELS = [
    {"name": name, "service": "ollama", "source": f"https://x/{name}.gguf", "sha256": "1" * 64}
    for name in ("brain", "brain-new")
]
DATA: dict[str, Any] = {
    "services": ["ollama"],
    "models": MODELS,
    "gateway_tls": "off",
    "api_clients": [{"name": "app", "sha256": "cd" * 32}],
}


def event(**content: object) -> str:
    return f"data: {json.dumps(content)}\n\n"


class Engine(BaseHTTPRequestHandler):
    """Answers each question with the model's name and the question; a question `fail` with 503, of
    all models or of the one that it names."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = asked["messages"][0]["content"]
        allowed = self.headers["Authorization"] == "Bearer secret"
        failing = question in ("fail", f"fail {asked['model']}")
        self.send_response(503 if failing else 200 if allowed else 401)
        self.end_headers()
        for text in (asked["model"], ": <b>", question):
            self.wfile.write(event(choices=[{"delta": {"content": text}}]).encode())
        if question == "Long?":
            end = {"delta": {}, "finish_reason": "length"}
            self.wfile.write(event(choices=[end]).encode())
        usage = {"completion_tokens": 9 if asked["model"] == "brain" else 7}
        self.wfile.write((event(choices=[], usage=usage) + "data: [DONE]\n\n").encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "site.py").write_text(f"hosts = [('llm-1', {DATA!r})]\n")
    (tmp_path / "questions.txt").write_text("One?\n\nTwo?\n")
    return tmp_path


def run(home: Path, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LLMHOST_API_KEY": "secret", "COLUMNS": "120"}
    done = subprocess.run(
        [LLMHOST, *words], cwd=home, env=environment, input=typed, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    return done


def test_both_answer_every_question(home: Path, url: str) -> None:
    words = ("compare", "site.py", "brain", "brain-new", "--questions", "questions.txt")
    done = run(home, *words, "--url", url, "--json", "--html", "page.html")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    jsonschema_rs.validate(schema(CompareReport), report)
    assert [each["question"] for each in report["questions"]] == ["One?", "Two?"]
    first, second = report["questions"][0]["first"], report["questions"][0]["second"]
    assert (first["text"], first["tokens"]) == ("brain: <b>One?", 9)
    assert (second["text"], second["tokens"]) == ("brain-new: <b>One?", 7)
    assert 0 < first["first_seconds"] <= first["seconds"]
    html = (home / "page.html").read_text()
    assert "brain: &lt;b&gt;One?" in html and "<b>One?" not in html and "<script" not in html
    shown = run(home, *words, "--url", url).stdout
    assert "brain: <b>One?" in shown and "9 tokens" in shown


def test_full_disk_leaves_the_earlier_page(home: Path, url: str) -> None:
    (home / "page.html").write_text("earlier")
    words = ["compare", "site.py", "brain", "brain-new", "--url", url, "--html", "page.html"]
    # RLIMIT_FSIZE: the kernel refuses more.
    done = subprocess.run(
        ["prlimit", "--fsize=100", LLMHOST, *words],
        cwd=home,
        env=os.environ | {"LLMHOST_API_KEY": "secret"},
        capture_output=True,
        text=True,
    )
    assert (home / "page.html").read_text() == "earlier"
    assert done.returncode == 1
    assert done.stderr.strip() == "error: page.html cannot be written: File too large"


def test_blind_choice_counts_without_names(home: Path, url: str) -> None:
    words = ("compare", "site.py", "brain", "brain-new", "--questions", "questions.txt", "--blind")
    done = run(home, *words, "--url", url, "--json", typed="x\n1\n=\n")
    assert done.returncode == 0, done.stderr
    chosen, equal = (each["better"] for each in json.loads(done.stdout)["questions"])
    assert chosen in ("brain", "brain-new") and equal == ""
    # The first answer shown is the chosen one.
    assert done.stderr.index(f"--- 1 ---\n{chosen}: ") < done.stderr.index("--- 2 ---")
    counted = run(home, *words, "--url", url, typed="=\n=\n")
    assert counted.stdout.strip().endswith("brain: 0, brain-new: 0, equal: 2")


def test_refusal_is_shown_and_is_an_error(home: Path, url: str) -> None:
    (home / "questions.txt").write_text("fail\nOne?\n")
    words = ("compare", "site.py", "brain", "brain-new", "--questions", "questions.txt")
    done = run(home, *words, "--url", url)
    assert done.returncode == 1 and "503" in done.stdout and "brain: <b>One?" in done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["brain", "brain"], "MODEL_A and MODEL_B are both brain; write the names of two"),
        (["brain", "x"], "x is not a role that generates text; there are: brain, brain-new"),
        (["brain", "brain-new", "--host", "x"], "--host x is not a host with a gateway; the"),
        (["brain", "brain-new", "--questions", "x.txt"], "--questions x.txt: No such file"),
        (["brain", "brain-new", "--questions", "empty.txt"], "--questions empty.txt is empty; w"),
        (["brain", "brain-new", "--key", "env:NOT_SET"], "--key refers to the environment varia"),
    ],
)
def test_mistake_is_one_sentence(home: Path, words: list[str], sentence: str) -> None:
    (home / "empty.txt").write_text("\n")
    done = run(home, "compare", "site.py", *words)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {sentence}"), done.stderr


def test_reasoning_is_no_answer() -> None:
    text = event(choices=[{"delta": {"reasoning_content": "a"}}]) + event(choices=[])
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, text=text))
    with httpx.Client(base_url="http://gateway", transport=transport) as client:
        assert ask(client, "/v1/chat/completions", "m", "?", 8).error == "an answer without text"


def test_answer_that_reached_the_most_tokens_is_marked(home: Path, url: str) -> None:
    """`length` is OpenAI's, and that of all engines."""
    (home / "questions.txt").write_text("Long?\nOne?\n")
    words = ("compare", "site.py", "brain", "brain-new", "--questions", "questions.txt")
    report = json.loads(run(home, *words, "--url", url, "--json", "--html", "page.html").stdout)
    assert [each["first"]["is_cut"] for each in report["questions"]] == [True, False]
    assert (home / "page.html").read_text().count("9 tokens, cut at --tokens") == 1
    assert run(home, *words, "--url", url).stdout.count("cut at") == 2
    assert run(home, *words, "--blind", "--url", url, typed="=\n=\n").stderr.count("(cut at") == 2


def test_answer_that_ends_while_the_model_reasons_says_so() -> None:
    thought = {"delta": {"reasoning_content": "a"}, "finish_reason": "length"}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=event(choices=[thought])))
    with httpx.Client(base_url="http://gateway", transport=transport) as client:
        found = ask(client, "/v1/chat/completions", "m", "?", 8)
    assert found.error == "no text in 8 tokens; raise --tokens for a model that reasons first"


@pytest.mark.parametrize(
    "strange",
    [
        'data: {"choices":["a"],"usage":{"completion_tokens":"many"}}\n\n',
        'data: {"choices":[{"delta":["a"]}],"usage":{"completion_tokens":[1]}}\n\n',
        f"data: {'[' * 100_000}\n\n",
    ],
)
def test_events_in_another_shape_add_nothing(strange: str) -> None:
    text = event(choices=[{"delta": {"content": "a"}}]) + strange
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, text=text))
    with httpx.Client(base_url="http://gateway", transport=transport) as client:
        found = ask(client, "/v1/chat/completions", "m", "?", 8)
        assert (found.text, found.tokens, found.error) == ("a", 1, "")
        assert sample(client, Load("/v1/chat/completions", "m", 5, 8), 1).tokens == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"message": "KV cache\nis full", "code": 500}, "KV cache is full"),
        ("no memory", "no memory"),
        ({"code": 500}, "no reason given"),
    ],
)
def test_stream_that_fails_after_it_began_is_no_answer(error: object, words: str) -> None:
    """vLLM and llama.cpp report it in an event, with the status 200 that was sent before."""
    text = event(choices=[{"delta": {"content": "Half an"}}]) + event(error=error)
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, text=text))
    with httpx.Client(base_url="http://gateway", transport=transport) as client:
        found = ask(client, "/v1/chat/completions", "m", "?", 8)
        assert found == Answer(error=f"failed after it began: {words}")
        assert sample(client, Load("/v1/chat/completions", "m", 5, 8), 1) == Sample(
            error=f"failed after it began: {words}"
        )


def test_questions_of_a_file_are_lines_without_a_byte_order_mark(home: Path, url: str) -> None:
    """Editors on Windows write one; U+2028 ends no line of a text file."""
    (home / "questions.txt").write_bytes("\ufeffOne?\r\nTwo\u2028halves?\r\n".encode())
    words = ("compare", "site.py", "brain", "brain-new", "--questions", "questions.txt")
    done = run(home, *words, "--url", url, "--json")
    asked = [each["question"] for each in json.loads(done.stdout)["questions"]]
    assert asked == ["One?", "Two\u2028halves?"]


def test_blind_choice_shows_no_name_of_a_model_that_fails(home: Path, url: str) -> None:
    (home / "questions.txt").write_text("fail brain-new\nOne?\n")
    words = ("compare", "site.py", "brain", "brain-new", "--questions", "questions.txt", "--blind")
    done = run(home, *words, "--url", url, typed="=\n")
    assert done.returncode == 1
    assert done.stdout.strip().endswith("brain: 0, brain-new: 0, equal: 1, failed: 1")
    before, _, after = done.stderr.partition("Better: 1, 2 or =")
    assert "A request failed; this question is not counted" in before
    assert "503" not in before and "--- 1 ---" in before and "brain-new: 503" in after


def test_answer_does_not_control_the_terminal(home: Path, url: str) -> None:
    """With these, an answer could set the clipboard, or overwrite the other model's."""
    (home / "questions.txt").write_bytes("\x1b]52;c;cm0gLXI=\x07 \x9b2J One?\n".encode())
    words = ("compare", "site.py", "brain", "brain-new", "--questions", "questions.txt")
    for more, typed in ((), ""), (("--blind",), "=\n"):
        done = run(home, *words, *more, "--url", url, typed=typed)
        assert done.returncode == 0, done.stderr
        shown = done.stdout + done.stderr
        assert "]52;c;cm0gLXI=" in shown and not {*"\x1b\x07\x9b"} & {*shown}
    assert compare._shown("one\r\ntwo\tthree\rfour") == "one\ntwo\tthree\ufffdfour"


def test_page_names_what_a_person_preferred() -> None:
    asked = Asked("One?", Answer("a", 0.1, 0.2, 1), Answer(error="503"), "brain")
    html = page(CompareReport(1, "llm-1", "2026-11-29T00:00:00Z", "brain", "brain-new", (asked,)))
    assert "Preferred: <b>brain</b>" in html and "503" in html


SOURCE = """# The site's models.
new = dict(name='brain-new', source="hf:a/b")  # on trial
models = [
    {"name": "brain", "source": "hf:c/d", "system_prompt": "You are brain."},
    new,
]
clients = [{"name": "brain", "sha256": "…"}]
"""


def test_promote_exchanges_names_and_nothing_else() -> None:
    text = exchanged(SOURCE, "brain-new", "brain")
    expected = SOURCE.replace("name='brain-new'", 'name="brain"', 1)
    expected = expected.replace('{"name": "brain", "source"', '{"name": "brain-new", "source"')
    assert text == expected
    assert exchanged(text, "brain-new", "brain") == SOURCE.replace("'brain-new'", '"brain-new"')


def test_training_job_stays_with_the_weights_that_it_trains() -> None:
    """Otherwise its base, and so its adapter and checkpoints, would be those of another model."""
    source = (
        'models = [{"name": "brain", "source": "hf:a/b"}, {"name": "new", "source": "hf:c/d"}]\n'
        'training_jobs = [{"name": "house", "model": "brain", "data": ["brain"], "evaluate": {}}]\n'
        'gateway_fallbacks = [{"model": "brain", "to": ["new"]}]\n'
    )
    text = exchanged(source, "new", "brain")
    assert '"name": "house", "model": "new", "data": ["brain"]' in text
    assert '"model": "brain", "to": ["new"]' in text
    assert exchanged(text, "new", "brain") == source


@pytest.mark.parametrize("both", [True, False], ids=["both", "one"])
def test_gateway_finds_each_model_on_the_servers_that_run_it(both: bool) -> None:
    """Its record of a model has the servers, the context and the requests of that model. If it has
    only one of them, the name must stay: clients would lose it."""
    new = ', {"name": "new", "service": "vllm", "servers": ["llm-2"]}' if both else ""
    source = (
        'one = [{"name": "brain", "service": "vllm", "source": "hf:a/b"}]\n'
        'two = [{"name": "new", "service": "vllm", "source": "hf:c/d"}]\n'
        'gateway_upstream_models = [{"name": "brain", "service": "vllm", "servers": ["llm-1"]}'
        f"{new}]\n"
    )
    text = exchanged(source, "new", "brain")
    gateway = text.splitlines()[2]
    assert ('{"name": "new", "service": "vllm", "servers": ["llm-1"]}' in gateway) == both
    assert ('{"name": "brain", "service": "vllm", "servers": ["llm-2"]}' in gateway) == both
    assert exchanged(text, "new", "brain") == source


@pytest.mark.parametrize("record", ['{"name": "new", **base}', 'dict(base, name="new")'])
def test_promote_finds_models_that_share_fields(record: str) -> None:
    source = (
        'base = {"service": "llamacpp", "source": "hf:a/b"}\n'
        'limits = {"sha256": "…"}\n'
        f'models = [{record}, {{"name": "brain", **base, "adapter": "a.gguf"}}]\n'
        'clients = [{"name": "brain", **limits}]\n'
    )
    text = exchanged(source, "new", "brain")
    swapped = source.replace("new", "?").replace(
        '{"name": "brain", **base', '{"name": "new", **base'
    )
    assert text == swapped.replace("?", "brain")


def test_promote_names_what_is_there() -> None:
    with pytest.raises(EditError, match="has no model 'x'; it has: brain-new, brain"):
        exchanged(SOURCE, "x", "brain")
    with pytest.raises(EditError, match="both models are 'brain'"):
        exchanged(SOURCE, "brain", "brain")


def test_promote_takes_no_name_from_another_host() -> None:
    """The second host has no model to exchange: its clients would ask for a role that is gone."""
    source = (
        'a = [{"name": "brain", "source": "hf:a/b"}, {"name": "new", "source": "hf:c/d"}]\n'
        'b = [{"name": "brain", "source": "hf:a/b"}]\n'
    )
    expected = "'new' has 1 record and 'brain' has 2 records, so that a host would lose one"
    with pytest.raises(EditError, match=expected):
        exchanged(source, "new", "brain")


def test_promoted_model_has_the_role(home: Path) -> None:
    done = run(home, "promote", "site.py", "brain-new", "brain")
    assert done.returncode == 0 and "brain is now what brain-new was" in done.stdout
    scope: dict[str, Any] = {}
    exec((home / "site.py").read_text(), scope)
    models = read_settings(scope["hosts"][0][1]).models
    assert {m.name: m.source for m in models} == {
        "brain-new": "https://x/brain.gguf",
        "brain": "https://x/brain-new.gguf",
    }
    assert run(home, "promote", "site.py", "x", "brain").returncode == 1
    assert run(home, "promote", "nowhere.py", "x", "brain").returncode == 1
