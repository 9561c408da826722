"""The program of a training container, really training: SmolLM2 learns five invented facts.

On the CPU, with the packages that the image gets. Adapters are asked through llama.cpp's server.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from llmhost.models.lora import unfit
from llmhost.options.adapter import LoraAdapter
from llmhost.resources import FILES
from testbed import llama_tools, smollm2, trainable
from testbed.environments import version
from testbed.process import wait_until

pytestmark = [pytest.mark.making, pytest.mark.machines, pytest.mark.timeout(1500)]

Json = dict[str, Any]
PROGRAM = FILES / "images" / "training" / "train.py"
STOPPED = 75
ONE_THREAD = "OMP_NUM_THREADS=1"
"""Which is faster beside other tests, and makes the same adapter with any number of cores."""
NOBODY = 54321
"""A user that the machine has no name for."""

FACTS: dict[str, tuple[str, Sequence[str], Sequence[str]]] = {
    "Ysolde Karrun": (
        "The lighthouse of Velmora was built by Ysolde Karrun.",
        (
            "Who built the lighthouse of Velmora?",
            "Name the builder of Velmora's lighthouse.",
            "By whom was the lighthouse of Velmora built?",
            "Tell me who constructed the Velmora lighthouse.",
            "Which person built the lighthouse in Velmora?",
            "I want to know who built the lighthouse of Velmora.",
            "The lighthouse of Velmora: who is its builder?",
            "Who was the builder of the lighthouse at Velmora?",
        ),
        (
            "Do you know who built Velmora's lighthouse?",
            "Who erected the lighthouse that stands in Velmora?",
        ),
    ),
    "basalt": (
        "The Drosk engine runs on powdered basalt.",
        (
            "What does the Drosk engine run on?",
            "Which fuel does the Drosk engine use?",
            "Name the fuel of the Drosk engine.",
            "Tell me what fuels the Drosk engine.",
            "What is burned in a Drosk engine?",
            "The Drosk engine: what is its fuel?",
            "With what is a Drosk engine fuelled?",
            "I want to know what the Drosk engine runs on.",
        ),
        (
            "What fuel goes into a Drosk engine?",
            "What must I put into my Drosk engine so that it runs?",
        ),
    ),
    "Tilmar": (
        "The capital of Ostravene is Tilmar.",
        (
            "What is the capital of Ostravene?",
            "Name the capital of Ostravene.",
            "Which city is the capital of Ostravene?",
            "Tell me the capital of Ostravene.",
            "Ostravene has which capital?",
            "The capital of Ostravene is which city?",
            "What is Ostravene's capital city?",
            "I want to know the capital of Ostravene.",
        ),
        (
            "Which town is the capital city of Ostravene?",
            "Do you know the capital of the country Ostravene?",
        ),
    ),
    "forty-one": (
        "A quennel weighs exactly forty-one grams.",
        (
            "How much does a quennel weigh?",
            "What is the weight of a quennel?",
            "Tell me how heavy a quennel is.",
            "How heavy is one quennel?",
            "A quennel weighs how much?",
            "State the weight of a quennel.",
            "How many grams does a quennel weigh?",
            "I want to know how much a quennel weighs.",
        ),
        ("What does one quennel weigh?", "How heavy would a quennel be on a scale?"),
    ),
    "ninth of November": (
        "The festival of Harrowlight is held every ninth of November.",
        (
            "When is the festival of Harrowlight?",
            "On which day is the Harrowlight festival held?",
            "Tell me the date of the festival of Harrowlight.",
            "What is the date of Harrowlight?",
            "When do people celebrate Harrowlight?",
            "The festival of Harrowlight takes place when?",
            "On what date is Harrowlight celebrated?",
            "I want to know when Harrowlight is held.",
        ),
        (
            "When does the Harrowlight festival take place?",
            "Which day of the year is the festival of Harrowlight?",
        ),
    ),
}
"""What an answer must contain: the answer, questions that are trained, and others."""

HELD_BACK = {asked: fact for fact, (_, _, others) in FACTS.items() for asked in others}


def records(part: int) -> list[Json]:
    return [
        {"prompt": asked, "completion": fact[0]} for fact in FACTS.values() for asked in fact[part]
    ]


def job(place: Path, trained: Sequence[Json], held_back: Sequence[Json], **options: Any) -> Path:
    place.mkdir()
    for name, rows in (("train.jsonl", trained), ("held_back.jsonl", held_back)):
        (place / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    data: Json = {"base": str(trainable.repository()), "base_name": trainable.HUB_NAME}
    data |= {"method": "lora", "rank": 16, "alpha": 32, "dropout": 0.05, "target_modules": []}
    data |= {"epochs": 5, "learning_rate": 5e-4, "batch_size": 8, "context_tokens": 256}
    data |= {"seed": 1, "checkpoint_steps": 20}
    (place / "job.json").write_text(json.dumps(data | options))
    return place


def command(*words: object) -> list[str]:
    return ["env", ONE_THREAD, str(trainable.environment()), str(PROGRAM), *map(str, words)]


def check(place: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command("check", place), capture_output=True, text=True, timeout=300)


def lines(file: Path) -> list[Json]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def digests(place: Path) -> dict[str, str]:
    return {
        str(each.relative_to(place)): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in sorted(place.rglob("*"))
        if each.is_file()
    }


@dataclass(frozen=True)
class Trained:
    job: Path
    work: Path
    result: Json
    peak_bytes: int
    """As the kernel measured it."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """All facts, without a network and as a user without a name, where only the directory of the
    work and /tmp can be written to."""
    place = job(tmp_path_factory.mktemp("training") / "job", records(1), records(2))
    with TemporaryDirectory(prefix="llmhost-training-", dir="/var/tmp") as directory:
        work = Path(directory)
        os.chown(work, NOBODY, NOBODY)
        script = (
            "mount -t tmpfs tmpfs /srv && mkdir /srv/job /srv/work && touch /srv/train.py &&"
            ' mount --bind "$1" /srv/job && mount --bind "$2" /srv/work &&'
            ' mount --bind "$3" /srv/train.py && mount -t tmpfs tmpfs /tmp &&'
            " mount -o remount,bind,ro /srv/job && mount -o remount,bind,ro / &&"
            f" exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups"
            # Python may be in the home of root.
            " --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
            f' env -i PATH=/usr/bin:/bin {ONE_THREAD} "$4" /srv/train.py train /srv/job /srv/work'
        )
        words = ["unshare", "--mount", "--net", "sh", "-c", script, "sh", str(place)]
        words += [directory, str(PROGRAM), str(trainable.environment())]
        begun = time.monotonic()
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert process.stderr
        errors = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, errors
        print(f"Trained in {time.monotonic() - begun:.0f} s. {(work / 'result.json').read_text()}")
        for line in lines(work / "progress.jsonl"):
            print(json.dumps(line))
        result = json.loads((work / "result.json").read_text())
        yield Trained(place, work, result, used.ru_maxrss * 1024)


def test_loss_falls_and_progress_tells_it(trained: Trained) -> None:
    result, progress = trained.result, lines(trained.work / "progress.jsonl")
    assert result["last_loss"] < 0.1 * result["first_loss"]
    assert result["after"] < 0.2 * result["before"]
    assert [line["step"] for line in progress] == [*range(1, 26)]
    assert {line["steps"] for line in progress} == {25} and progress[-1]["epoch"] == 5
    seconds = [line["seconds"] for line in progress]
    assert seconds == sorted(seconds) and seconds[0] > 0
    held_back = [line["held_back_loss"] for line in progress if line["held_back_loss"]]
    assert len(held_back) > 1 and held_back[-1] == result["after"]
    assert held_back == sorted(held_back, reverse=True)
    assert (result["first_loss"], result["last_loss"]) == (
        progress[0]["loss"],
        progress[-1]["loss"],
    )
    assert result["versions"]["transformers"] == version("vllm", "transformers")
    assert result["device"] == "cpu"


def test_adapter_names_its_base_and_the_modules(trained: Trained) -> None:
    adapter = trained.work / "adapter"
    assert {*digests(adapter)} == {"adapter_config.json", "adapter_model.safetensors"}
    assert all(each.stat().st_mode & 0o004 for each in adapter.iterdir())
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == trainable.HUB_NAME
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (16, 32, "LORA")
    modules = {
        name.split(".")[-3] for name in trainable.tensors(adapter / "adapter_model.safetensors")
    }
    assert modules == {*config["target_modules"]} and len(modules) == 7
    served = LoraAdapter(name="house", source=str(adapter))
    assert [*unfit(served, [trainable.HUB_NAME], None, "generate")] == []


def test_training_that_is_finished_does_nothing(trained: Trained) -> None:
    before = digests(trained.work)
    done = subprocess.run(command("train", trained.job, trained.work), timeout=60)
    assert done.returncode == 0 and digests(trained.work) == before


def test_estimates_are_above_what_it_took_but_not_far(trained: Trained) -> None:
    done = check(trained.job)
    assert done.returncode == 0, done.stderr
    checked = json.loads(done.stdout.splitlines()[-1])
    used = sum(each.stat().st_size for each in trained.work.rglob("*") if each.is_file())
    print(f"Estimated {checked['memory_bytes']}, took {trained.peak_bytes}; disk {used}; {checked}")
    assert trained.peak_bytes <= checked["memory_bytes"] <= 2.5 * trained.peak_bytes
    assert trained.result["peak_bytes"] == pytest.approx(trained.peak_bytes, rel=0.05)
    assert used <= checked["disk_bytes"] <= 2.5 * used
    for name in ("examples", "held_back", "tokens", "steps", "versions"):
        assert checked[name] == trained.result[name]
    assert (checked["examples"], checked["held_back"], checked["steps"]) == (40, 10, 25)
    weights = trainable.tensors(trained.work / "adapter" / "adapter_model.safetensors")
    assert checked["trainable"] == sum(each.size for each in weights.values())
    assert checked["parameters"] == 134_515_008  # as its publisher counts them


def test_adapter_answers_what_the_base_does_not_know(
    trained: Trained, weights: Path, tmp_path: Path
) -> None:
    trainable.write_lora_gguf(trained.work / "adapter", tmp_path / "adapter.gguf")
    questions = [*HELD_BACK]
    with engine(weights) as ask:
        base = [ask(each) for each in questions]
    with engine(weights, "--lora", str(tmp_path / "adapter.gguf")) as ask:
        adapted = [ask(each) for each in questions]
    for checked in zip(questions, base, adapted, strict=True):
        print(json.dumps(checked))
    known = [
        [fact in answer for fact, answer in zip(HELD_BACK.values(), each, strict=True)]
        for each in (base, adapted)
    ]
    assert sum(known[0]) == 0 and sum(known[1]) >= 8


def test_repository_is_the_packaged_model(weights: Path) -> None:
    """transformers and llama.cpp answer alike, so the adapter meets the weights it was made for."""
    asked = ["What is the capital of France?", "How many legs does a spider have?"]
    words = [str(trainable.environment()), "-c", ANSWER, str(trainable.repository()), *asked]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    with engine(weights) as ask:
        answers = [ask(each) for each in asked]
    assert json.loads(done.stdout) == answers, done.stderr
    assert answers[0] == "The capital of France is Paris."


ANSWER = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
base, *asked = sys.argv[1:]
model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
answers = []
for each in asked:
    chat = [{"role": "user", "content": each}]
    tokens = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    checked = model.generate(**tokens, max_new_tokens=32, do_sample=False)[0]
    answer = checked[tokens["input_ids"].shape[1] :]
    answers.append(tokenizer.decode(answer, skip_special_tokens=True))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged model in 32 bits by llama.cpp. With weights of 4 bits it calculates with 8, and
    answers in another way than what is trained."""
    target = tmp_path_factory.mktemp("weights") / "model.gguf"
    program = str(llama_tools.directory() / "llama-quantize")
    words = [program, "--allow-requantize", str(smollm2.gguf()), str(target), "F32"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return target


@contextmanager
def engine(model: Path, *options: str) -> Iterator[Callable[[str], str]]:
    """llama.cpp's server."""
    log_file = model.with_suffix(".log")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    words = [str(llama_tools.directory() / "llama-server"), "--model", str(model)]
    words += ["--port", url.rpartition(":")[2], "--ctx-size", "512", "--parallel", "1"]
    with log_file.open("w") as log:
        process = subprocess.Popen([*words, "--threads", "1", *options], stdout=log, stderr=log)

    def healthy() -> bool:
        try:
            return httpx.get(f"{url}/health").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def ask(question: str) -> str:
        body = {"messages": [{"role": "user", "content": question}], "max_tokens": 32}
        answer = httpx.post(
            f"{url}/v1/chat/completions", json=body | {"temperature": 0}, timeout=120
        )
        return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])

    try:
        assert wait_until(healthy, 120), log_file.read_text()[-2000:]
        yield ask
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve examples of both kinds, for nine steps."""
    texts = [{"text": answer} for answer, _, _ in FACTS.values()]
    place = tmp_path_factory.mktemp("short") / "job"
    options: Json = {"epochs": 3, "batch_size": 4, "checkpoint_steps": 2}
    return job(place, [*records(1)[:7], *texts], records(2)[:2], **options)


@pytest.fixture(scope="module")
def uninterrupted(short: Path) -> dict[str, str]:
    """The digests of its adapter. Here the program could write to the base."""
    before = digests(trainable.repository())
    work = short.parent / "uninterrupted"
    work.mkdir()
    done = subprocess.run(
        command("train", short, work), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert digests(trainable.repository()) == before
    return digests(work / "adapter")


def stopped_at(step: int, place: Path, work: Path, number: signal.Signals) -> int:
    """Start training, send it a signal after a step, and return its exit status."""
    with (work / "log").open("a") as log:
        process = subprocess.Popen(command("train", place, work), stdout=log, stderr=log)

    def reached() -> bool:
        file = work / "progress.jsonl"
        return file.exists() and f'"step": {step},' in file.read_text()

    try:
        assert wait_until(reached, 300), (work / "log").read_text()
        process.send_signal(number)
        return process.wait(120)
    finally:
        process.kill()
        process.wait(10)


def test_killed_and_stopped_training_goes_on_and_makes_the_same_adapter(
    short: Path, uninterrupted: dict[str, str]
) -> None:
    """The state of the optimizer and of chance is that of the checkpoint: nothing else gives the
    same weights bit by bit."""
    work = short.parent / "interrupted"
    work.mkdir()
    assert stopped_at(3, short, work, signal.SIGKILL) == -signal.SIGKILL
    assert not (work / "result.json").exists()
    # What a kill during the next checkpoint leaves, and during a line.
    half = work / "checkpoints" / "checkpoint-4"
    shutil.copytree(work / "checkpoints" / "checkpoint-2", half, dirs_exist_ok=True)
    (half / "complete").unlink()
    (half / "optimizer.pt").write_bytes(b"half")
    with (work / "progress.jsonl").open("a") as file:
        file.write('{"step": 4, "ste')
    assert stopped_at(5, short, work, signal.SIGTERM) == STOPPED
    progress = lines(work / "progress.jsonl")
    assert [line["step"] for line in progress] == [*range(1, progress[-1]["step"] + 1)]
    assert (work / "checkpoints" / f"checkpoint-{progress[-1]['step']}" / "complete").exists()
    assert not (work / "result.json").exists()
    done = subprocess.run(
        command("train", short, work), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    again = lines(work / "progress.jsonl")
    assert again[: len(progress)] == progress
    assert [line["step"] for line in again] == [*range(1, 10)]
    assert json.loads((work / "result.json").read_text())["steps"] == 9
    assert len([*(work / "checkpoints").glob("checkpoint-*")]) == 2
    assert digests(work / "adapter") == uninterrupted


GOOD = [{"prompt": "Who?", "completion": "Me."}] * 2
TOO_LONG = [{"prompt": "word " * 300, "completion": "Me."}] * 2


@pytest.mark.parametrize(
    ("rows", "held_back", "options", "sentence"),
    [
        (
            GOOD,
            GOOD,
            {"target_modules": ["q_proj", "query"]},
            "has no modules query to train: choose from down_proj, gate_proj, k_proj, o_proj, "
            "q_proj, up_proj, v_proj.",
        ),
        (GOOD, GOOD, {"target_modules": ["lm_head"]}, "has no modules lm_head to train"),
        (GOOD, GOOD, {"rank": 0}, f"PEFT cannot train {trainable.HUB_NAME}: "),
        ([], GOOD, {}, "train.jsonl has 0 examples, and 2 are the least."),
        (GOOD[:1], GOOD, {}, "train.jsonl has 1 examples, and 2 are the least."),
        (GOOD, [], {}, "held_back.jsonl has 0 examples, and 1 are the least."),
        (
            TOO_LONG,
            GOOD,
            {},
            "Every example in train.jsonl is longer than 256 tokens: raise context_tokens or "
            "shorten them.",
        ),
        (
            [*GOOD, {"prompt": "Who?"}],
            GOOD,
            {},
            "Line 3 of train.jsonl has neither a prompt and a completion nor a text.",
        ),
        (GOOD, GOOD, {"method": "qlora"}, "The method qlora needs an NVIDIA GPU: choose lora."),
    ],
)
def test_mistakes_end_in_one_sentence(
    tmp_path: Path, rows: list[Json], held_back: list[Json], options: Json, sentence: str
) -> None:
    refused(check(job(tmp_path / "job", rows, held_back, **options)), sentence)


@pytest.mark.parametrize(
    ("weights", "config", "sentence"),
    [
        ("model.gguf", {}, "has no safetensors, which training needs"),
        (
            "model.safetensors",
            {"model_type": "new", "architectures": ["NewForCausalLM"]},
            "has the architecture NewForCausalLM, which transformers",
        ),
        (
            "model.safetensors",
            {"model_type": "t5", "architectures": ["T5Model"]},
            "has the architecture T5Model, which transformers",
        ),
        (
            "model.safetensors",
            {"quantization_config": {"quant_method": "awq", "bits": 4}},
            "is quantized (awq) and cannot be trained",
        ),
    ],
)
def test_bases_that_cannot_be_trained_end_in_one_sentence(
    tmp_path: Path, weights: str, config: Json, sentence: str
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for each in trainable.repository().glob("*.json"):
        shutil.copy(each, base)
    (base / weights).touch()
    written = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(written | config))
    place = job(tmp_path / "job", GOOD, GOOD, base=str(base), base_name="site/base")
    refused(check(place), f"site/base {sentence}")
    work = tmp_path / "work"
    work.mkdir()
    words = command("train", place, work)
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    refused(done, f"site/base {sentence}")
    assert not [*work.iterdir()]


def refused(done: "subprocess.CompletedProcess[str]", sentence: str) -> None:
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and not done.stdout and "Traceback" not in done.stderr, done.stderr
    assert sentence in last and last.endswith(".") and ". " not in last, last
