"""Training jobs: what is refused before anything starts, the examples, what a host is told, and
what a deploy makes of the adapter.

The program in the container runs in tests/integration/test_training_program.py, the script on the
host in tests/integration/test_training.py.
"""

import hashlib
import importlib.util
import io
import json
import math
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import typer

from llmhost.cli import train
from llmhost.cli.remote import RemoteError
from llmhost.cli.train_drain import Gateways
from llmhost.inventory.model_rules import _strange
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.models.lock import write_lock
from llmhost.models.lora import unfit
from llmhost.options.adapter import LoraAdapter
from llmhost.settings import Settings
from llmhost.stack.project import compose_project, service_images
from llmhost.stack.training import all_images, training_images
from llmhost.training import adapter as adapters
from llmhost.training.data import DataError, Example, Examples, divided, read_examples
from llmhost.training.job import SCRIPT, HostJob, stopped_for
from llmhost.training.plot import plot
from llmhost.training.report import Step, TrainReport
from tests.unit.peft_adapters import safetensors, tensors

Json = dict[str, Any]
COMMIT = "ab" * 20
FILES = [
    {"path": "config.json", "sha256": hashlib.sha256(b"{}").hexdigest()},
    {"path": "model.safetensors", "sha256": hashlib.sha256(b"x").hexdigest()},
]
SHAPE = {
    "weights_bytes": 2**30,
    "cache_values": 1024,
    "hidden_size": 576,
    "vocabulary_size": 49_152,
    "layers": 30,
    "attention_heads": 9,
}


def job(**changes: Any) -> Json:
    return {
        "name": "house",
        "model": "brain",
        "data": ["facts.jsonl"],
        "evaluate": {"at_most": 0.9},
        **changes,
    }


def site(*jobs: Json, **changes: Any) -> Json:
    brain = {
        "name": "brain",
        "service": "vllm",
        "source": "hf:example/brain",
        "revision": COMMIT,
        "files": FILES,
        "shape": SHAPE,
    }
    data: Json = {"services": ["vllm", "redis"], "models": [brain | changes.pop("model", {})]}
    data |= {"api_clients": [{"name": "app", "sha256": "ab" * 32}], "training_jobs": list(jobs)}
    return data | changes


def settings_of(*jobs: Json, **changes: Any) -> Settings:
    return read_settings(site(*jobs, **changes))


def refusal(*jobs: Json, **changes: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        settings_of(*jobs, **changes)
    return mistakes(caught.value)


def mistakes(error: SettingsError) -> str:
    return " / ".join(each.sentence("llm") for each in error.problems)


def test_base_is_the_repository_of_the_model() -> None:
    (found,) = settings_of(job()).training_jobs
    assert (found.base, found.revision) == ("hf:example/brain", COMMIT)
    assert found.base_model.path == "/models/brain" and len(found.files) == 2


def test_base_of_a_gguf_is_named_and_pinned_by_the_lock_file(tmp_path: Path) -> None:
    gguf = {
        "service": "llamacpp",
        "source": "https://models.lan/brain.gguf",
        "sha256": COMMIT[:2] * 32,
    }
    lock = tmp_path / "models.lock.json"
    entry = {"revision": COMMIT, "files": FILES, "licence": "apache-2.0"}
    lock.write_text(write_lock({"hf:example/brain": entry}))
    data = site(job(base="hf:example/brain"), services=["llamacpp"], stack_models_lock=str(lock))
    data["models"] = [{"name": "brain", **gguf}]
    (found,) = read_settings(data).training_jobs
    assert [each.path for each in found.files] == ["config.json", "model.safetensors"]
    data["training_jobs"] = [job()]
    with pytest.raises(SettingsError) as caught:
        read_settings(data)
    assert "'brain' is a GGUF file, which cannot be trained; add base" in mistakes(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"model": "nobody"},
            "'house' is for the model 'nobody', which is no model that generates",
        ),
        (
            {"base": "hf:example/other"},
            "has a base that is not pinned; run: llmhost model lock INVENTORY",
        ),
        ({"base": "hf:example/other", "files": FILES[:1]}, "has a base without safetensors"),
        ({"base": "ollama:llama:1b", "files": FILES}, "from Ollama's library"),
        ({"method": "qlora"}, "is 'qlora', which needs an NVIDIA GPU; add gpu"),
        ({"rank": 0}, "rank: is 0; write a whole number of dimensions from 1 to 512"),
        ({"data": []}, "data: is an empty list"),
        ({"evaluate": {"held_back": 0.2}}, "evaluate.at_most"),
        ({"target_modules": ["q proj"]}, "target_modules"),
        ({"hours": "22-6"}, "hours"),
        ({"hours": "06:00-06:00"}, "which begins when it ends"),
        ({"stop_services": ["ollama"]}, "stops the service 'ollama', which is not declared"),
        ({"licence": "cc-by-nc-nd-4.0"}, "has the license 'cc-by-nc-nd-4.0', which allows no"),
        ({"base_models": ["deepseek-ai/DeepSeek-R1"]}, "is refused by policy_denied_publishers"),
    ],
)
def test_mistakes_are_refused(changes: Json, sentence: str) -> None:
    policy = {"policy_denied_publishers": ["deepseek-ai"]}
    assert sentence in refusal(job(**changes), **policy)


def test_missing_evaluation_is_refused() -> None:
    record = job()
    del record["evaluate"]
    assert "evaluate: is missing; add a record" in refusal(record)


def test_image_has_the_base_and_is_no_service() -> None:
    settings = settings_of(job())
    (image,) = training_images(settings)
    (vllm, _) = service_images(settings)
    # The same weights as vLLM's: they are on the disk once.
    assert image.models == vllm.models and image.reference.startswith("llmhost/training-house:")
    assert all_images(settings) == (*service_images(settings), image)
    assert "training-house" not in compose_project(settings).images
    assert {"Dockerfile", "train.py", "training.lock", "pip.conf"} <= {
        f.path for f in image.context
    }


def test_package_index_is_that_of_the_inventory() -> None:
    (image,) = training_images(settings_of(job(), training_package_index="https://pypi.lan/simple"))
    (file,) = [each for each in image.context if each.path == "pip.conf"]
    assert file.data == b"[global]\nindex-url = https://pypi.lan/simple\n"


def test_package_index_without_tls_is_trusted_because_hashes_decide() -> None:
    (image,) = training_images(settings_of(job(), training_package_index="http://pypi.lan:81/a"))
    (file,) = [each for each in image.context if each.path == "pip.conf"]
    assert file.data == b"[global]\nindex-url = http://pypi.lan:81/a\ntrusted-host = pypi.lan:81\n"


@pytest.mark.parametrize(
    ("changes", "options", "stopped"),
    [
        ({}, {"vllm_gpu": 0}, []),
        ({"gpu": 0}, {"vllm_gpu": 0}, ["vllm"]),
        ({"gpu": 1}, {"vllm_gpu": 0}, []),
        ({"gpu": 1}, {"vllm_gpu": [0, 1], "vllm_tensor_parallel": 1}, ["vllm"]),
        # Only the host knows which GPU that is.
        ({"gpu": 1}, {"vllm_gpu_count": 1}, ["vllm"]),
        ({"gpu": 1}, {"vllm_gpu": "GPU-11111111-2222-3333-4444-555555555555"}, ["vllm"]),
        ({"gpu": 1, "stop_services": ["redis"]}, {"vllm_gpu": 0}, ["redis"]),
    ],
)
def test_services_that_may_share_the_gpu_are_stopped(
    changes: Json, options: Json, stopped: list[str]
) -> None:
    settings = settings_of(job(**changes), **options)
    assert stopped_for(settings.training_jobs[0], settings) == stopped


# --- Examples


def write(place: Path, **files: str) -> Path:
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        file = place / f"{stem.replace('__', '/')}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return place


def test_examples_of_each_kind(tmp_path: Path) -> None:
    lines = [
        {"question": "Who?", "answer": "Ada."},
        {"prompt": "When?", "completion": "1843."},
        {"instruction": "Add.", "output": "2"},
        {"text": "Alone."},
        {"question": "Who?", "answer": "Ada."},
    ]
    text = "\n".join(map(json.dumps, lines))
    write(tmp_path, facts_jsonl=text, notes_md="# Notes\n\nOne.", code__a_py="x = 1\n")
    write(tmp_path, node_modules__b_js="no", picture_png="no")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "c.md").write_text("no")
    assert read_examples([str(tmp_path)], 1024) == [
        Example("x = 1"),
        Example("Ada.", "Who?"),
        Example("1843.", "When?"),
        Example("2", "Add."),
        Example("Alone."),
        Example("# Notes\n\nOne."),
    ]


def test_long_text_is_divided_between_paragraphs(tmp_path: Path) -> None:
    paragraphs = [f"{number} " + "word " * 30 for number in range(20)]
    write(tmp_path, long_md="\n\n".join(paragraphs))
    found = [each.answer for each in read_examples([str(tmp_path)], 128)]
    assert all(len(each) <= 3 * 128 for each in found)
    assert [line for each in found for line in each.split("\n\n")] == [
        each.rstrip() if each == paragraphs[-1].rstrip() else each for each in paragraphs
    ]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b"{", "data that is not JSON: "),
        ("a.jsonl", b'{"text": ' + b"[" * 100_000, "data that is not JSON: "),
        ("a.jsonl", b'{"question": "Who?"}', "data without a question and an answer: "),
        ("a.jsonl", b'{"question": "Who?", "answer": " "}', "without a question and an answer"),
        ("a.md", b"\xff\xfe", "which is not UTF-8"),
        ("a.pdf", b"%PDF", "files end in .md"),
        ("missing", None, "which does not exist on the controller"),
    ],
)
def test_data_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_examples([str(tmp_path / name)], 1024)


def test_json_lines_end_with_line_feeds_alone(tmp_path: Path) -> None:
    """Other ends of lines are valid in strings of JSON (RFC 8259, section 7), and editors on
    Windows write a byte order mark."""
    text = "first\u2028second\u0085third"
    line = json.dumps({"question": text, "answer": "yes"}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n\r\n".encode())
    assert read_examples([str(tmp_path / "a.jsonl")], 1024) == [Example("yes", text)]


def test_examples_to_hold_back_must_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fraction of the others instead would judge by what nobody chose."""
    (tmp_path / "facts.md").write_text("\n\n".join(f"Fact {n} " + "x" * 3000 for n in range(20)))
    empty = tmp_path / "held.jsonl"
    empty.write_text("\n")
    evaluate = {"file": str(empty), "at_most": 0.9}
    settings = settings_of(job(data=[str(tmp_path / "facts.md")], evaluate=evaluate))
    with pytest.raises(typer.Exit):
        train._examples(settings.training_jobs[0])
    assert f"has no example in {empty}; add some, or remove" in capsys.readouterr().err


def facts(count: int) -> list[Example]:
    return [Example(f"answer {number}", f"question {number}?") for number in range(count)]


def test_what_is_held_back_depends_on_the_seed_alone() -> None:
    found = divided(facts(40), 0.1, [], 1)
    assert len(found.held_back) == 4 and not {*found.held_back} & {*found.train}
    assert {*divided(facts(40)[::-1], 0.1, [], 1).held_back} == {*found.held_back}
    assert {*divided(facts(40), 0.1, [], 2).held_back} != {*found.held_back}


def test_given_examples_are_held_back_and_never_trained_on() -> None:
    found = divided(facts(20), 0.1, facts(3), 1)
    assert found.held_back == tuple(facts(3)) and len(found.train) == 17


def test_what_only_looks_different_is_held_back_together() -> None:
    """A copy in the data would make the loss on what is held back too good."""
    copies = [Example(f"ANSWER  {number}\n", f" question {number}?") for number in range(40)]
    found = divided([*facts(40), *copies], 0.1, [], 1)
    assert (len(found.held_back), len(found.train)) == (8, 72)
    assert not {each.words for each in found.held_back} & {each.words for each in found.train}
    found = divided([*facts(20), *copies], 0.1, facts(3), 1)
    assert found.held_back == tuple(facts(3))
    assert not {each.words for each in facts(3)} & {each.words for each in found.train}


def test_link_out_of_a_directory_is_refused(tmp_path: Path) -> None:
    """A cloned repository may have one to a key of the operator."""
    write(tmp_path, docs__a_md="A text.")
    (tmp_path / "docs" / "same.md").symlink_to("a.md")
    assert read_examples([str(tmp_path / "docs")], 128) == [Example("A text.")]
    (tmp_path / "id_ed25519").write_text("a key")
    link = tmp_path / "docs" / "notes.txt"
    link.symlink_to("../id_ed25519")
    with pytest.raises(DataError, match=f"has {link} in data, a link to {tmp_path}/id_ed25519 out"):
        read_examples([str(tmp_path / "docs")], 128)
    assert read_examples([str(link)], 128) == [Example("a key")]


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(DataError, match="has 7 examples to train on besides"):
        divided(facts(8), 0.1, [], 1)


# --- The host


@pytest.fixture(scope="module")
def host() -> ModuleType:
    spec = importlib.util.spec_from_file_location("training_host", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("hours", "clock", "minutes"),
    [
        ("", "12:00", math.inf),
        ("22:00-06:00", "21:59", 0),
        ("22:00-06:00", "22:00", 480),
        ("22:00-06:00", "23:30", 390),
        ("22:00-06:00", "05:59", 1),
        ("22:00-06:00", "06:00", 0),
        ("09:00-17:00", "08:59", 0),
        ("09:00-17:00", "12:00", 300),
        ("09:00-17:00", "17:00", 0),
    ],
)
def test_hours(host: ModuleType, hours: str, clock: str, minutes: int) -> None:
    moment = datetime.fromisoformat(f"2026-12-01T{clock}:00")
    assert host.seconds_left(hours, moment) == pytest.approx(60 * minutes)


@pytest.mark.parametrize(
    ("night", "hours"),
    [("2026-03-28", 7), ("2026-10-24", 9), ("2026-11-24", 8)],
    ids=["summer time begins", "summer time ends", "neither"],
)
def test_hours_end_on_time_when_the_clocks_change(
    host: ModuleType, monkeypatch: pytest.MonkeyPatch, night: str, hours: int
) -> None:
    """Central European Time, by the rules of 2026; the host's time zone counts."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        moment = datetime.fromisoformat(f"{night}T22:00:00")
        assert host.seconds_left("22:00-06:00", moment) == hours * 3600
    finally:
        monkeypatch.undo()
        time.tzset()


def smi(place: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    """A double of nvidia-smi that prints these lines."""
    program = place / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")


DOCKER = """#!/bin/sh
case "$*" in
    *" ps --services") printf 'vllm\\nredis\\n' ;;
    run*) echo '{"memory_bytes": 1, "disk_bytes": 1}' ;;
esac
"""


def test_what_an_operator_stopped_is_not_among_what_gateways_wait_for(
    host: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway returns the server when all that it waits for runs: it would stay drained."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(DOCKER)
    (tmp_path / "bin/docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr(host.os, "chown", lambda *_, **__: None)
    (tmp_path / "job").mkdir()
    declared = settings_of(job(stop_services=["vllm", "redis"]), services=["vllm", "redis"])
    made = HostJob(declared, declared.training_jobs[0], Examples((Example("x"),), ()))
    asked = {**made.question, "gpus": [], "ports": {}, "stopped": f"{tmp_path}/stopped"}
    (tmp_path / "question.json").write_text(json.dumps(asked))
    found = host.Question(tmp_path)
    assert host.check(found)["stops"] == ["vllm", "redis"]
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped/redis").write_text("stopped by jane at noon\n")
    assert host.check(found)["stops"] == ["vllm"]


def test_gateways_drain_for_what_the_host_will_stop() -> None:
    checked = dict.fromkeys(("trainable", "parameters", "examples", "tokens", "steps"), 1)
    answers = {"check": {**checked, "memory_bytes": 1, "stops": ["vllm"]}}
    drained: list[str] = []

    class Recorder(Gateways):
        @contextmanager
        def drained(self) -> Iterator[None]:
            drained.extend(self.services)
            yield

    def run(command: str) -> str:
        return json.dumps(answers.get(command.rpartition(" ")[2], {}))

    machine: Any = SimpleNamespace(name="llm", run=run, feed=lambda *_: None)
    (declared,) = settings_of(job()).training_jobs
    made = HostJob(settings_of(job()), declared, Examples((Example("x"),), ()))
    target: Any = None
    tools: Any = SimpleNamespace(check=lambda *_: None)
    training = train._Training(machine, made)
    training.begin(tools, Recorder("site.py", target), again=False)
    assert drained == ["vllm"]


@pytest.mark.parametrize("refused", [False, True], ids=["accepted", "refused"])
def test_checkpoints_are_forgotten_only_when_it_begins_again(refused: bool) -> None:
    checked = dict.fromkeys(("trainable", "parameters", "examples", "tokens", "steps"), 1)
    found = {**checked, "memory_bytes": 1, "stops": [], "left_out": 2}
    commands: list[str] = []

    def run(command: str) -> str:
        commands.append(command)
        if refused and command.endswith(" check"):
            raise RemoteError("The rank is too large.")
        return json.dumps(found if command.endswith(" check") else {})

    machine: Any = SimpleNamespace(name="llm", run=run, feed=lambda *_: None)
    training = train._Training(machine, host_job())
    target: Any = None
    tools: Any = None
    with pytest.raises(RemoteError) if refused else nullcontext():
        training.begin(tools, Gateways("site.py", target), again=True)
    done = [command.rpartition(" ")[2] for command in commands if "host.py" in command]
    assert done == ["status", "check", *([] if refused else ["forget", "start"])]
    assert not any("rm " in command for command in commands)


def test_what_is_left_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    checked = dict.fromkeys(("trainable", "parameters", "examples", "tokens", "steps"), 1)
    found = {**checked, "memory_bytes": 1, "stops": [], "left_out": 2}
    answer = json.dumps(found)
    machine: Any = SimpleNamespace(
        name="llm",
        run=lambda command: answer if command.endswith(" check") else "{}",
        feed=lambda *_: None,
    )
    target: Any = None
    tools: Any = None
    training = train._Training(machine, host_job())
    training.begin(tools, Gateways("site.py", target), again=False)
    assert "2 questions left out: longer than context_tokens, 1024, with the" in (
        capsys.readouterr().err
    )


def test_training_that_cannot_be_started_is_not_running(
    host: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "systemctl").write_text(
        '#!/bin/sh\n[ "$1" != enable ] || { echo "Read-only file system" >&2; exit 1; }\n'
    )
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(host, "UNITS", tmp_path)
    (tmp_path / "question.json").write_text(json.dumps(host_job().question))
    question = host.Question(tmp_path)
    with pytest.raises(host.Failure, match="Read-only file system"):
        host.start(question)
    state = json.loads((tmp_path / "state.json").read_text())
    assert (state["state"], state["why"]) == ("failed", "Read-only file system")
    assert not [*tmp_path.glob("*.service")]


@pytest.mark.parametrize(("system", "left"), [("running", False), ("stopping", True)])
def test_unit_is_there_while_the_training_is_wanted(
    system: str, left: bool, host: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the end, it is gone; a host that shuts down continues at its next boot."""
    (tmp_path / "systemctl").write_text(
        f"#!/bin/sh\n[ $1 != is-system-running ] || echo {system}\n"
    )
    (tmp_path / "docker").write_text("#!/bin/sh\n")
    for name in ("systemctl", "docker"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(host, "UNITS", tmp_path)
    (tmp_path / "question.json").write_text(json.dumps(host_job().question))
    question = host.Question(tmp_path)
    host.start(question)
    [unit] = tmp_path.glob("*.service")
    assert f"{tmp_path}/host.py" in unit.read_text()
    host.give_back(question)
    assert unit.exists() == left


BUSY_DOCKER = """#!/bin/sh
case "$1" in
  rm) rm -f "{place}/taken" ;;
  run)
    if [ -e "{place}/taken" ]; then
      echo 'Error response from daemon: Conflict. The container name is already in use' >&2
      exit 125
    fi
    echo '{{"memory_bytes": 0, "disk_bytes": 0}}' ;;
esac
"""


def test_container_of_an_interrupted_check_is_in_nobody_s_way(
    host: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker").write_text(BUSY_DOCKER.format(place=tmp_path))
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "taken").touch()
    (tmp_path / "job").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(host, "UNITS", tmp_path)
    asked = host_job().question | {"gpus": [], "services": [], "hours": "", "ports": {}}
    (tmp_path / "question.json").write_text(json.dumps(asked))
    assert host.check(host.Question(tmp_path))["memory_bytes"] == 0


def test_link_that_a_container_has_made_changes_no_owner(
    host: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("job", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "work" / "adapter").symlink_to("/etc")
    (tmp_path / "question.json").write_text(json.dumps(host_job().question))
    changed: dict[str, bool] = {}
    monkeypatch.setattr(
        host.os,
        "chown",
        lambda place, *_, follow_symlinks=True: changed.update({place.name: follow_symlinks}),
    )
    host.prepare(host.Question(tmp_path))
    assert changed == {"job": False, "work": False, "adapter": False}


TRIED_DOCKER = """#!/bin/sh
case "$1" in
  run)
    [ ! -e "{place}/refused" ] || {{ echo 'The rank is too large.' >&2; exit 1; }}
    echo '{{"memory_bytes": 7, "disk_bytes": 0}}' ;;
esac
"""


def test_refused_job_leaves_the_checkpoints_of_the_earlier_one(
    host: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in an option, corrected in the next minute, must not cost a night."""
    (tmp_path / "docker").write_text(TRIED_DOCKER.format(place=tmp_path))
    (tmp_path / "systemctl").write_text("#!/bin/sh\n")
    for name in ("systemctl", "docker"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(host, "UNITS", tmp_path)
    monkeypatch.setattr(host.os, "chown", lambda *_, **__: None)
    (tmp_path / "job").mkdir()
    checkpoint = tmp_path / "work" / "checkpoints" / "checkpoint-900"
    checkpoint.mkdir(parents=True)
    (tmp_path / "state.json").write_text('{"digest": "earlier", "state": "paused"}')
    asked = host_job().question | {"gpus": [], "services": [], "hours": "", "ports": {}}
    (tmp_path / "question.json").write_text(json.dumps(asked))
    question = host.Question(tmp_path)
    (tmp_path / "refused").touch()
    with pytest.raises(host.Failure, match="The rank is too large"):
        host.check(question)
    assert checkpoint.exists() and host.state_of(question)["digest"] == "earlier"
    (tmp_path / "refused").unlink()
    host.check(question)
    assert checkpoint.exists() and host.state_of(question)["state"] == "paused"
    host.start(question)
    assert not checkpoint.exists() and (tmp_path / "work").is_dir()
    state = host.state_of(question)
    assert (state["digest"], state["memory_bytes"]) == (question.digest, 7)
    checkpoint.mkdir(parents=True)
    host.start(question)
    assert checkpoint.exists()
    host.forget(question)
    host.start(question)
    assert not checkpoint.exists()


def test_container_that_ran_out_of_memory_says_so(
    host: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel kills it without a word; the last one in the log is of an earlier run."""
    (tmp_path / "question.json").write_text(json.dumps(host_job().question))
    question = host.Question(tmp_path)
    log = tmp_path / "log"
    log.write_text("The loss is no longer a number.\n")
    begun = log.stat().st_size
    host.finish(question, 137, "", begun)
    assert "was killed, as the system does if memory is exh" in host.state_of(question)["why"]
    host.finish(question, 3, "", begun)
    assert host.state_of(question)["why"] == "its container ended with status 3 and printed nothing"
    with log.open("a") as file:
        file.write("Another mistake.\n")
    host.finish(question, 1, "", begun)
    assert host.state_of(question)["why"] == "Another mistake."


LOST = "Unable to determine the device handle for GPU 0000:65:00.0: Unknown Error\\n"


@pytest.mark.parametrize(
    ("lines", "needed_gib", "sentence"),
    [
        ("0, GPU-a, [N/A], [N/A]\\n", 0, ""),
        ("0, GPU-a, [N/A], [N/A]\\n", 10**6, "on this host "),
        ("0, GPU-a, [GPU is lost], [GPU is lost]\\n", 0, "GPU 0 reports .GPU is lost. as its"),
        (f"{LOST}0, GPU-a, 81920, 80000\\n", 79, "on GPU 0 78.1 GiB are free"),
        (LOST, 0, "it needs GPU 0, which is not on this host"),
    ],
)
def test_memory_of_gpus_as_nvidia_smi_prints_it(
    host: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: str,
    needed_gib: int,
    sentence: str,
) -> None:
    """A DGX Spark's GPU has no memory of its own, and broken ones print sentences."""
    smi(tmp_path, monkeypatch, lines)
    question = SimpleNamespace(gpus=["0"])
    if not sentence:
        host.check_memory(question, needed_gib * 1024**3, free=True)
        return
    with pytest.raises(host.Failure, match=sentence):
        host.check_memory(question, needed_gib * 1024**3, free=True)


def host_job(**changes: Any) -> HostJob:
    settings = settings_of(job(**changes))
    return HostJob(settings, settings.training_jobs[0], divided(facts(20), 0.1, [], 1))


def test_checkpoints_belong_to_data_settings_and_image() -> None:
    first = host_job()
    assert host_job().digest == first.digest == host_job(hours="22:00-06:00").digest
    assert host_job(rank=8).digest != first.digest
    other = HostJob(first.settings, first.job, divided(facts(21), 0.1, [], 1))
    assert other.digest != first.digest


def test_nobody_else_reads_the_files_of_a_job() -> None:
    files = host_job().files
    assert {file.mode for file in files.values()} == {"0600"}
    assert "/var/lib/llmhost/training/house/job/train.jsonl" in files


# --- The adapter


def trained(before: object, after: object) -> bytes:
    config = {"r": 16, "lora_alpha": 32, "target_modules": ["down_proj"], "peft_type": "LORA"}
    weights = {name: each for name, each in tensors(16).items() if "down_proj" in name}
    content = {
        "adapter/adapter_config.json": json.dumps(config).encode(),
        "adapter/adapter_model.safetensors": safetensors(weights),
        "result.json": json.dumps({"before": before, "after": after}).encode(),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    draft, target = tmp_path / "draft", tmp_path / "models.trained" / "house"
    target.parent.mkdir()
    result = adapters.unpacked(trained(2.0, 1.0), draft)
    found = adapters.kept(host_job(), draft, target, result, {"by": "somebody"})
    assert found.value == 0.5 and not draft.exists()
    yield target


def test_card_says_what_the_adapter_was_trained_on(kept: Path) -> None:
    card = json.loads((kept / "training.json").read_text())
    assert card["base"]["source"] == "hf:example/brain" and card["base"]["revision"] == COMMIT
    assert card["settings"]["rank"] == 16 and card["data"]["train"] == 18
    weights = (kept / "adapter_model.safetensors").read_bytes()
    assert card["files"]["adapter_model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert "base_model: example/brain" in (kept / "README.md").read_text()


def test_adapter_that_is_not_good_enough_is_discarded(tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    result = adapters.unpacked(trained(2.0, 1.9), draft)
    with pytest.raises(adapters.TrainingError, match=r"1.9000 with it and 2.0000 without"):
        adapters.kept(host_job(), draft, tmp_path / "house", result, {})
    assert not (tmp_path / "house").exists()


@pytest.mark.parametrize("before", [0.0, -1.0, math.nan])
def test_loss_that_cannot_be_is_no_success(before: float) -> None:
    with pytest.raises(adapters.TrainingError, match="its adapter is discarded"):
        adapters.judged(host_job(), {"before": before, "after": 0.5})


@pytest.mark.parametrize(
    "archive", [b"", b"nothing", trained(1, 1)[:700], trained(None, 1), trained(1, [])]
)
def test_damaged_result_is_refused(tmp_path: Path, archive: bytes) -> None:
    with pytest.raises(adapters.TrainingError, match="cannot be read"):
        adapters.unpacked(archive, tmp_path / "draft")


def served(kept: Path, **changes: Any) -> Json:
    adapter = {"name": "house", "source": str(kept)} | changes
    return site(model={"adapters": [adapter]})


def test_adapter_is_served_for_its_base(kept: Path) -> None:
    digest = hashlib.sha256((kept / "adapter_model.safetensors").read_bytes()).hexdigest()
    (model,) = read_settings(served(kept, sha256=digest)).models
    assert model.adapters[0].sha256 == digest


def test_adapter_of_another_base_is_refused_by_digest(kept: Path) -> None:
    data = served(kept)
    data["models"][0]["files"] = [FILES[0], {**FILES[1], "sha256": "cd" * 32}]
    with pytest.raises(SettingsError) as caught:
        read_settings(data)
    assert "was trained on hf:example/brain with the digest" in mistakes(caught.value)


def test_changed_adapter_is_refused(kept: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(served(kept, sha256="ab" * 32))
    assert "instead of " + "ab" * 32 in mistakes(caught.value)
    (kept / "adapter_model.safetensors").write_text("other weights")
    with pytest.raises(SettingsError) as caught:
        read_settings(served(kept))
    assert "is not the one that" in mistakes(caught.value)


def test_losses_are_drawn(tmp_path: Path) -> None:
    steps = [
        Step(number, 3, 3.0 - number, None if number < 3 else 0.4, 1.0) for number in (1, 2, 3)
    ]
    report = TrainReport(1, "llm", "house", "done", "", tuple(steps))
    plot(report, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_examples_are_part_of_the_job() -> None:
    empty = Examples((), ())
    assert empty.digest != Examples(tuple(facts(1)), ()).digest
    assert Examples(tuple(facts(1)), ()).digest != Examples((), tuple(facts(1))).digest


def test_adapter_for_a_model_made_of_another_gguf_is_served(tmp_path: Path) -> None:
    """Its repository has another digest than the F16 file that the model was made from."""
    card = {"base": {"source": "hf:example/brain", "digest": "cd" * 32}, "files": {}}
    (tmp_path / "training.json").write_text(json.dumps(card))
    (tmp_path / "adapter.gguf").touch()
    for source, refused in (("hf:example/brain-GGUF/f16.gguf", 0), ("hf:example/brain", 1)):
        made: Any = SimpleNamespace(derive=True, made_from=source, made_from_sha256="ab" * 32)
        found = [*_strange(made, tmp_path, tmp_path / "adapter.gguf", None)]
        assert len([each for each in found if "was trained on" in each]) == refused


@pytest.mark.parametrize(
    "card",
    [
        "[1]",
        "[" * 100_000,
        '{"base": "x", "files": {}}',
        '{"base": {"source": 1, "digest": 2}, "files": {}}',
        '{"base": {"source": "a", "digest": null}, "files": [["adapter.gguf", 1]]}',
    ],
)
def test_card_in_another_shape_is_none_or_another(card: str, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(card)
    (tmp_path / "adapter.gguf").touch()
    made: Any = SimpleNamespace(derive=None, files=("a",), digest="ab" * 32)
    found = [*_strange(made, tmp_path, tmp_path / "adapter.gguf", None)]
    assert all("was trained on" in each or "is not the one" in each for each in found)


@pytest.mark.parametrize("text", ["[1]", "5", "{", "[" * 100_000])
def test_adapter_whose_config_is_no_record_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    (tmp_path / "adapter_model.safetensors").touch()
    adapter = LoraAdapter.model_validate({"name": "house", "source": str(tmp_path)})
    assert [*unfit(adapter, ["brain"], None, "generate")] == [
        "has an adapter_config.json that cannot be read"
    ]


def test_base_has_the_files_that_its_model_includes(tmp_path: Path) -> None:
    lock = tmp_path / "models.lock.json"
    lock.write_text(write_lock({"hf:example/brain [*.json]": {"revision": COMMIT, "files": FILES}}))
    data = site(job(), stack_models_lock=str(lock))
    data["models"] = [data["models"][0] | {"include": ["*.json"]}]
    for key in ("files", "revision"):
        del data["models"][0][key]
    settings = read_settings(data)
    assert settings.training_jobs[0].base_model.digest == settings.models[0].digest


def test_input_of_an_instruction_is_read_and_no_context_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"instruction": "Sum up:", "input": "A tale.", "output": "It ends."}')
    assert [e.question for e in read_examples([str(file)], 64)] == ["Sum up:\n\nA tale."]
    file.write_text('{"context": "A tale.", "question": "How?", "answer": "Well."}')
    with pytest.raises(DataError, match=r"has data with context, which is not read: .*line 1"):
        read_examples([str(file)], 64)


def test_changed_job_replaces_an_adapter_that_was_brought(host: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "state.json").write_text('{"digest": "earlier", "state": "done"}')
    (tmp_path / "question.json").write_text(json.dumps(host_job().question))
    for name, replaced in (("result.json", "its finished adapter"), ("brought", "")):
        (tmp_path / "work" / name).touch()
        assert host.replaced(host.Question(tmp_path)) == replaced


@pytest.mark.parametrize("left", ["result.json", "checkpoints/checkpoint-900/complete"])
def test_changed_job_removes_nothing_unasked(
    left: str, host: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data is often a directory that people edit; a night's work must not go for a comma."""
    place = tmp_path / "work" / left
    place.parent.mkdir(parents=True)
    place.touch()
    (tmp_path / "state.json").write_text('{"digest": "earlier", "state": "paused"}')
    (tmp_path / "question.json").write_text(json.dumps(host_job().question))
    replaces = host.replaced(host.Question(tmp_path))
    assert replaces
    checked = dict.fromkeys(("trainable", "parameters", "examples", "tokens", "steps"), 1)
    answer = json.dumps({**checked, "memory_bytes": 1, "stops": [], "replaces": replaces})
    commands: list[str] = []

    def run(command: str) -> str:
        commands.append(command)
        return answer if command.endswith(" check") else "{}"

    machine: Any = SimpleNamespace(name="llm", run=run, feed=lambda *_: None)
    none: Any = None
    training = train._Training(machine, host_job())
    with pytest.raises(typer.Exit):
        training.begin(none, Gateways("site.py", none), again=False)
    assert not any(each.endswith(" start") for each in commands)
    assert "with --again" in capsys.readouterr().err
    training.begin(none, Gateways("site.py", none), again=True)
    assert commands[-1].endswith(" start")
