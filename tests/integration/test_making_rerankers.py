"""Rerankers that are really quantized and exported: the judge of their scores is PyTorch.

The model is trained here, on Cranfield's questions with even places; the others are the evaluation.
"""

import hashlib
import json
import random
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from statistics import correlation
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from benchmarks.search.cranfield import Cranfield, judge
from llmhost.making.llama import Reranker
from llmhost.making.tools import Tools
from testbed import llama_tools, minilm, trained_reranker
from testbed.trained_reranker import CONTEXT_TOKENS

ROOT = Path(__file__).parents[2]
CRANFIELD = ROOT.parent / "shared" / "cranfield"
pytestmark = [
    pytest.mark.making,
    pytest.mark.machines,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not CRANFIELD.is_dir(), reason="needs the texts of ../shared/cranfield"),
]
QUESTIONS = {"collection": 10, "small": 2}
"""Of the evaluations. Debian's PyTorch needs 15 s on one core for each of `small`."""
DOCUMENTS = 300
JUDGED = 12
"""Pairs of each question of `small` that PyTorch scores."""
Json = dict[str, Any]


@pytest.fixture(scope="module")
def tools() -> Path:
    return llama_tools.directory()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], float]]:
    """A site's directory with texts, a collection, `Reranker` and `reranker-f32.gguf`; and scores
    of some pairs by PyTorch."""
    home = tmp_path_factory.mktemp("rerankers")
    found = Cranfield.read(CRANFIELD)
    for name, number in QUESTIONS.items():
        _write_collection(found, home / name, number)
    pairs = _pairs(found)
    (home / "pairs.txt").write_text("".join(f"{one}\t{other}\n" for one, other in pairs))
    repository = home / "Reranker"
    scores = trained_reranker.write(_examples(found), pairs, repository)
    minilm.write_gguf(home / "reranker-f32.gguf", repository)
    return home, dict(zip(pairs, scores, strict=True))


def _examples(found: Cranfield) -> list[Json]:
    """Of questions with even places: relevant texts, and others that share words with it."""
    chance = random.Random(1)
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE texts USING fts5(name, text)")
    database.executemany("INSERT INTO texts VALUES (?, ?)", found.documents.items())
    examples = []
    for question, relevant in [*zip(found.questions, found.relevant, strict=True)][::2]:
        words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question))
        query = "SELECT name FROM texts WHERE text MATCH ? ORDER BY rank LIMIT 40"
        similar = [name for (name,) in database.execute(query, (words,)) if name not in relevant]
        right = sorted(relevant & {*found.documents})
        if right:
            others = [*chance.sample(similar, 3), *chance.sample([*found.documents], 2)]
            examples.append(
                {
                    "question": question,
                    "relevant": [found.documents[each] for each in right[:3]],
                    "others": [found.documents[each] for each in others],
                }
            )
    return examples


def _write_collection(found: Cranfield, place: Path, number: int) -> None:
    """Odd questions, what is relevant for them, and other texts."""
    questions, relevant = found.questions[1::2][:number], found.relevant[1::2][:number]
    wanted = set().union(*relevant) & {*found.documents}
    others = [name for name in found.documents if name not in wanted]
    names = [*sorted(wanted), *others[: DOCUMENTS - len(wanted)]]
    (place / "qrels").mkdir(parents=True)
    rows = [{"_id": name, "text": found.documents[name]} for name in names]
    (place / "corpus.jsonl").write_text(_lines(rows))
    rows = [{"_id": str(n), "text": text} for n, text in enumerate(questions)]
    (place / "queries.jsonl").write_text(_lines(rows))
    judged = [f"{n}\t{name}\t1\n" for n, right in enumerate(relevant) for name in sorted(right)]
    (place / "qrels" / "test.tsv").write_text("".join(["query-id\tcorpus-id\tscore\n", *judged]))


def _pairs(found: Cranfield) -> list[tuple[str, str]]:
    """Odd questions with relevant and other texts."""
    names, half = [*found.documents], JUDGED // 2
    both = [*zip(found.questions, found.relevant, strict=True)][1::2]
    return [
        (question, found.documents[name])
        for question, right in both[: QUESTIONS["small"]]
        for name in [*sorted(right & {*names})[:half], *names[:half]]
    ]


def _lines(rows: list[Json]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def evaluations(agreement: float, rerank: float, collection: str = "collection") -> list[Json]:
    return [
        {"agreement": "pairs.txt", "at_least": agreement},
        {"rerank": collection, "at_least": rerank},
    ]


def gguf(home: Path, quantize: str, evaluate: list[Json]) -> Json:
    file = home / "reranker-f32.gguf"
    return {
        "name": quantize.lower(),
        "service": "embeddings",
        "task": "rerank",
        "source": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "context_tokens": CONTEXT_TOKENS,
        "derive": {"quantize": quantize, "evaluate": evaluate},
    }


def repository(home: Path, **derive: Any) -> Json:
    place = home / "Reranker"
    files = [
        {"path": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in sorted(place.iterdir())
    ]
    found: Json = {"name": "reranker", "service": "web", "task": "rerank", "source": str(place)}
    return found | {"files": files, "context_tokens": CONTEXT_TOKENS, "derive": derive}


def make(home: Path, tools: Path, record: Json) -> subprocess.CompletedProcess[str]:
    data: Json = {"services": [record["service"]], "models": [record]}
    data |= {"api_clients": [{"name": "app", "sha256": "ab" * 32}]}
    (home / "site.py").write_text(f"llm_servers = [('llm', {data!r})]\n")
    command = [sys.executable, "-m", "llmhost.cli", "model", "make", "site.py", "--json"]
    command += ["--tools", str(tools), "--threads", "1"]
    return subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=2400)


def made(home: Path, tools: Path, record: Json) -> Json:
    done = make(home, tools, record)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    (found,) = json.loads(done.stdout)["models"]
    assert found["before"]["unit"] == found["after"]["unit"] == "scores/s"
    assert found["before"]["rate"] > 0 and found["after"]["rate"] > 0
    return dict(found)


def test_scores_of_the_source_are_those_of_pytorch(
    trained: tuple[Path, dict[tuple[str, str], float]], tools: Path
) -> None:
    """llama.cpp and PyTorch, with the same weights; texts that need no cut."""
    home, judged = trained
    with Reranker(Tools(tools, 1), home / "reranker-f32.gguf", 512) as reranker:
        for question, text in [*judged][:3]:
            short = " ".join(text.split()[:20])
            assert len(reranker.score(question, [short, text])) == 2
    with Reranker(Tools(tools, 1), home / "reranker-f32.gguf", CONTEXT_TOKENS) as reranker:
        found = [reranker.score(question, [text])[0] for question, text in judged]
    # The server cuts a text by its characters, so the last words differ.
    assert correlation(found, [*judged.values()]) > 0.98


def test_quantized_reranker_keeps_its_order(
    trained: tuple[Path, dict[tuple[str, str], float]], tools: Path
) -> None:
    home, _ = trained
    found = made(home, tools, gguf(home, "Q8_0", evaluations(0.98, 0.95)))
    assert found["after"]["bytes"] < found["before"]["bytes"] * 0.3
    agreement, rerank = found["evaluations"]
    assert agreement["value"] < 1
    print("chance", _chance())
    assert rerank["before"] > _chance() + 0.03


def _chance() -> float:
    """nDCG@10 of 30 texts for each question, all that are relevant among them, in any order."""
    found, chance = Cranfield.read(CRANFIELD), random.Random(1)
    relevant = [each & {*found.documents} for each in found.relevant[1::2]]
    wanted = relevant[: QUESTIONS["collection"]] * 100
    texts = [sorted(each) + [""] * (30 - len(each)) for each in wanted]
    return judge([chance.sample(each, len(each)) for each in texts], wanted).ndcg_at_10


def test_reranker_that_loses_its_order_is_refused(
    trained: tuple[Path, dict[tuple[str, str], float]], tools: Path
) -> None:
    home, _ = trained
    done = make(home, tools, gguf(home, "Q4_0", evaluations(0.9999, 0.5, "small")))
    output = " ".join(done.stderr.split())
    assert done.returncode == 1 and "Traceback" not in output
    assert "its agreement on pairs.txt is 0.9" in output
    assert "and at least 0.9999 is needed" in output


def test_converter_that_omits_a_layer_is_not_used(
    trained: tuple[Path, dict[tuple[str, str], float]], tools: Path
) -> None:
    home, _ = trained
    record = repository(home, quantize="Q8_0", evaluate=evaluations(0.9, 0.9))
    done = make(home, tools, record | {"service": "embeddings"})
    assert done.returncode == 1
    assert "llama.cpp's converter omits a layer that scores" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("precision", "evaluate", "difference"),
    [
        # Activations are rounded to 8 bits, too, so that the smallest differences between ONNX
        # Runtimes or processors grow: one and the same file has scores that differ by 0.4.
        ("int8", evaluations(0.95, 0.9, "small"), 0.7),
        ("fp32", evaluations(0.9999, 0.999)[:1], 0.001),
    ],
)
def test_onnx_scores_are_those_of_pytorch(
    precision: str,
    evaluate: list[Json],
    difference: float,
    trained: tuple[Path, dict[tuple[str, str], float]],
    tools: Path,
) -> None:
    """By another ONNX Runtime and tokenizer than those that measured it."""
    home, judged = trained
    record = repository(home, onnx={"precision": precision}, evaluate=evaluate)
    found = made(home, tools, record)
    assert {each["measure"] for each in found["evaluations"]} == {
        name for each in evaluate for name in each if name != "at_least"
    }
    result = home / "models.made" / found["file"]
    session = onnxruntime.InferenceSession(str(next((result / "onnx").iterdir())))
    assert [each.name for each in session.get_outputs()] == ["logits"]
    tokenizer = Tokenizer.from_file(str(result / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(CONTEXT_TOKENS)
    spread = float(np.std([*judged.values()]))
    for (question, text), expected in judged.items():
        tokens = tokenizer.encode(question, text)
        fields = {"input_ids": tokens.ids, "attention_mask": tokens.attention_mask}
        fields["token_type_ids"] = tokens.type_ids
        inputs = {name: np.array([each], np.int64) for name, each in fields.items()}
        score = float(np.asarray(session.run(None, inputs)[0])[0, 0])
        assert score == pytest.approx(expected, abs=difference * spread)
