"""Several models of the service llamacpp on the real engine: a base and its adapters, each under
its own name, and other tasks beside them."""

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import testinfra
from testinfra.host import Host

from llmhost.checks.services import test_llamacpp as checks
from llmhost.checks.services.api import Api
from llmhost.inventory.reader import read_settings
from llmhost.options.model import Model
from llmhost.settings import Settings
from testbed import tiny_embedder, tiny_model
from testbed.engine import engine_archive
from testbed.process import wait_until
from tests.engines.container import Container, EngineImage, container
from tests.engines.contract import Engine, llamacpp_client
from tests.shapes import Json
from tests.unit.model_files import lora_pair, write_lora

ADAPTERS = {"legal": "blk.0.attn_q.weight", "style": "blk.1.attn_v.weight"}
NAMES = ("base", *ADAPTERS)
PROMPT = "One heron asked the clerk for a quartz clock, and the clerk said: wait. " * 4
ARGUMENTS = ["--metrics", "--log-verbosity", "4"]
ASKED = {"prompt": PROMPT, "temperature": 0, "max_tokens": 16, "logprobs": 3}


def records(home: Path) -> list[Json]:
    """A base and two adapters for it."""
    sha256 = tiny_model.write(home / "tiny.gguf")
    of_all = {"source": str(home / "tiny.gguf"), "sha256": sha256, "context_tokens": 512}
    for name, tensor in ADAPTERS.items():
        write_lora(home / f"{name}.gguf", lora_pair(tensor))
    adapters = {name: {"adapter": str(home / f"{name}.gguf")} for name in ADAPTERS}
    return [{"name": name, **of_all, **adapters.get(name, {})} for name in NAMES]


def site(*models: Json, **more: Any) -> Settings:
    """With llama.cpp alone."""
    declared = [{"service": "llamacpp", **each} for each in models]
    clients = [{"name": "test", "sha256": "ab" * 32}]
    data: Json = {"services": ["llamacpp"], "models": declared, "api_clients": clients}
    return read_settings({**data, "llamacpp_threads": 1, **more})


def started(settings: Settings, home: Path) -> Any:
    return container(settings, "llamacpp", EngineImage(engine_archive()), home)


def post(url: str, path: str, body: object) -> httpx.Response:
    with llamacpp_client(Engine("llama.cpp", "", "real", url)) as client:
        return client.post(path, json=body)


@dataclass(frozen=True)
class Said:
    """A text, and the logarithms of its tokens' probabilities. They differ in the fourth digit if
    the beginning of a prompt was computed before, in a batch of another size."""

    text: str
    numbers: tuple[float, ...]

    def __eq__(self, other: object) -> bool:
        numbers = pytest.approx(self.numbers, abs=0.005)
        return isinstance(other, Said) and self.text == other.text and numbers == other.numbers


def answer(url: str, name: str) -> Said:
    said = post(url, "/v1/completions", {**ASKED, "model": name})
    assert said.status_code == 200, said.text
    (choice,) = said.json()["choices"]
    return Said(choice["text"], tuple(each["logprob"] for each in choice["logprobs"]["content"]))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def settings(home: Path) -> Settings:
    base, legal, style = records(home)
    style |= {"parallel": 2, "parameters": {"top_k": 11}}
    return site(base, legal, style, llamacpp_extra_arguments=ARGUMENTS)


@pytest.fixture(scope="module")
def models(settings: Settings) -> tuple[Model, ...]:
    return settings.models_of("llamacpp")


@pytest.fixture(scope="module")
def server(settings: Settings, home: Path) -> Iterator[Container]:
    with started(settings, home / "all") as found:
        yield found


@pytest.fixture(scope="module")
def engine(server: Container) -> Engine:
    version = httpx.get(f"{server.url}/props?model=base").json()["build_info"]
    return Engine("llama.cpp router", version, "real", server.url)


@pytest.fixture(scope="module")
def alone(home: Path, settings: Settings) -> dict[str, Said]:
    """The first answer of each model in a service of its own."""
    found = {}
    for record in records(home):
        with started(site(record), home / record["name"]) as one:
            found[record["name"]] = answer(one.url, record["name"])
    return found


def children(server: Container) -> list[int]:
    """The processes of the models."""
    pid = server.process.pid
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def test_models_have_names_and_answers_of_their_own(engine: Engine, alone: dict[str, Said]) -> None:
    listed = httpx.get(f"{engine.url}/v1/models").json()["data"]
    assert {each["id"] for each in listed} == {*NAMES}
    assert {name: answer(engine.url, name) for name in NAMES} == alone
    assert len({each.text for each in alone.values()}) == len(NAMES)


def test_requests_with_the_same_prompt_do_not_change_each_other_s_answers(
    engine: Engine, alone: dict[str, Said]
) -> None:
    """As they do in one process whose requests choose their adapters (llama.cpp issue 26207)."""
    for first, second in product(NAMES, repeat=2):
        assert answer(engine.url, first) == alone[first]
        assert answer(engine.url, second) == alone[second]
    with ThreadPoolExecutor(6) as pool:
        asked = NAMES * 4
        said = [*pool.map(lambda name: answer(engine.url, name), asked)]
    assert said == [alone[name] for name in asked]


@pytest.mark.parametrize("named", [{"model": "other"}, {}], ids=["unknown", "none"])
def test_request_for_no_declared_model_is_refused(engine: Engine, named: Json) -> None:
    said = post(engine.url, "/v1/completions", {**ASKED, **named})
    assert said.status_code == 400
    assert said.json()["error"]["type"] == "invalid_request_error"


def verified(server: Container, models: tuple[Model, ...]) -> None:
    """Run the checks of `llmhost verify`."""
    api = Api(testinfra.get_host("local://"), server.url)
    checks.test_model_is_offered_under_its_declared_name(api, models)
    checks.test_every_request_has_the_declared_context(api, models)
    checks.test_chat_streams_token_by_token(api, models)
    checks.test_adapter_changes_the_answers(api, models)
    checks.test_slots_and_web_interface_are_closed(api, models)


def test_what_verify_checks_holds(server: Container, models: tuple[Model, ...]) -> None:
    verified(server, models)


def test_what_verify_checks_holds_for_one_model(home: Path, settings: Settings) -> None:
    _, legal, _ = records(home)
    alone = site(legal)
    with started(alone, home / "checked") as server:
        verified(server, alone.models_of("llamacpp"))


def test_adapter_of_one_of_several_that_is_ignored_is_noticed(home: Path, tmp_path: Path) -> None:
    base, legal, _ = records(home)
    untrained = write_lora(tmp_path / "lora.gguf", lora_pair(ADAPTERS["legal"], scale=0))
    declared = site(base, legal, {**base, "name": "untrained", "adapter": str(untrained)})
    with started(declared, tmp_path / "run") as server:
        api = Api(testinfra.get_host("local://"), server.url)
        with pytest.raises(AssertionError, match="'untrained' answers exactly like its base"):
            checks.test_adapter_changes_the_answers(api, declared.models_of("llamacpp"))


def test_options_of_the_service_hold_for_every_model(server: Container) -> None:
    for pid in children(server):
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert words[words.index("--threads") + 1] == "1" and "--no-slots" in words


def test_metrics_are_those_of_each_model(engine: Engine) -> None:
    """Prometheus therefore asks for each: Service.metric_models."""
    assert httpx.get(f"{engine.url}/metrics").status_code == 400
    before = {name: _tokens(engine, name) for name in NAMES}
    answer(engine.url, "legal")
    after = {name: _tokens(engine, name) for name in NAMES}
    assert [name for name in NAMES if before[name] != after[name]] == ["legal"]


def _tokens(engine: Engine, name: str) -> str:
    text = httpx.get(f"{engine.url}/metrics?model={name}").text
    (found,) = re.findall(r"^llamacpp:tokens_predicted_total (\S+)$", text, re.MULTILINE)
    return str(found)


def test_weights_are_in_the_image_and_in_memory_once(server: Container, settings: Settings) -> None:
    files = {path.name for path in (server.root / "models").iterdir()}
    assert files == {"base.gguf", *(f"{name}.adapter.gguf" for name in ADAPTERS)}
    mapped = [_mapped(pid) for pid in children(server)]
    size = (server.root / "models/base.gguf").stat().st_size
    assert len(mapped) == len(NAMES)
    assert all(rss >= 0.9 * size for rss, _ in mapped)
    assert sum(share for _, share in mapped) <= 1.1 * size


def _mapped(pid: int) -> tuple[int, int]:
    """Bytes of the weights in the memory of a process, and its share of them."""
    found, here = {"Rss": 0, "Pss": 0}, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            here = line.endswith("/models/base.gguf")
        elif here and name in found:
            found[name] += int(value.split()[0]) * 1024
    return found["Rss"], found["Pss"]


def test_model_whose_process_ended_comes_back_by_the_health_check(
    server: Container, alone: dict[str, Said]
) -> None:
    assert server.is_healthy()
    victim = next(
        pid for pid in children(server) if "style" in Path(f"/proc/{pid}/cmdline").read_text()
    )
    os.kill(victim, signal.SIGKILL)
    assert wait_until(lambda: victim not in children(server), 10)
    assert wait_until(server.is_healthy, 60)
    assert victim not in children(server) and answer(server.url, "style") == alone["style"]


def test_service_is_healthy_only_with_all_of_its_models(home: Path, tmp_path: Path) -> None:
    base, legal, _ = records(home)
    broken = write_lora(tmp_path / "lora.gguf", lora_pair(ADAPTERS["legal"]))
    declared = site(base, legal, {**base, "name": "broken", "adapter": str(broken)})
    write_lora(broken, lora_pair("blk.9.attn_q.weight"))
    image = EngineImage(engine_archive())
    with (
        pytest.raises(AssertionError, match="failed to load lora adapter"),
        container(declared, "llamacpp", image, tmp_path / "run", ready_seconds=15),
    ):
        pass


def test_other_tasks_drafts_and_names_that_are_used_elsewhere(home: Path, tmp_path: Path) -> None:
    base, legal, _ = records(home)
    legal |= {"draft": base["source"], "name": "default"}
    vector: Json = {"name": "vector", "task": "embed", "context_tokens": 256}
    vector["sha256"] = tiny_embedder.write(tmp_path / "embed.gguf", "embed")
    vector["source"] = str(tmp_path / "embed.gguf")
    order: Json = {"name": "order", "task": "rerank", "context_tokens": 256}
    order["sha256"] = tiny_embedder.write(tmp_path / "rerank.gguf", "rerank")
    order["source"] = str(tmp_path / "rerank.gguf")
    declared = site(base, legal, vector, order)
    with started(declared, tmp_path / "run") as server:
        checks.test_model_is_offered_under_its_declared_name(
            Api(testinfra.get_host("local://"), server.url), declared.models_of("llamacpp")
        )
        (service,) = declared.catalogue
        for request in service.requests(declared.models_of("llamacpp")):
            said = post(server.url, request.path, request.body)
            assert said.status_code == 200, said.text
        said = post(server.url, "/v1/completions", {**ASKED, "model": "default"})
        assert said.json()["timings"]["draft_n"] > 0


def test_model_answers_under_the_names_of_those_that_fall_back_to_it(
    home: Path, tmp_path: Path, alone: dict[str, Said]
) -> None:
    base, legal, _ = records(home)
    more: Json = {
        "services": ["llamacpp", "ollama"],
        "models": [
            *({"service": "llamacpp", **each} for each in (base, legal)),
            {**base, "name": "brain", "service": "ollama"},
        ],
        "gateway_fallbacks": {"brain": ["legal"]},
    }
    with started(site(**more), tmp_path / "run") as server:
        assert answer(server.url, "brain") == alone["legal"]
        listed = httpx.get(f"{server.url}/v1/models").json()["data"]
        assert {each["id"] for each in listed} == {"base", "legal"}


def test_log_says_what_each_process_has_loaded(server: Container) -> None:
    """So `llmhost verify` finds whether all of them are on the GPU; this build supports none."""
    found = {"State": {"StartedAt": "2026-12-01T00:00:00+00:00"}, "Id": "1"}
    started_by = {"Config": {"Cmd": server.declared["command"]}}
    host = cast(Host, SimpleNamespace(check_output=lambda _: server.log.read_text()))
    on_gpu, said = checks.computes_on_gpu(host, found | started_by)
    assert not on_gpu and said.count("its build has no GPU support") >= len(NAMES)
