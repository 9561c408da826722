"""Ollama's store as it is baked, its resident models and its roles."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from gguf import GGMLQuantizationType as Kind

from llmhost.checks.services import test_ollama as checks
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.options.model import Model
from llmhost.services import catalogue
from llmhost.stack.project import compose_project, service_images
from llmhost.units import GIB
from llmhost.vram.plan import vram_plan
from testbed.double_images import program
from tests.unit.model_files import write_gguf
from tests.unit.ollama_store import ROOT, bake, model, served, starts

Data = dict[str, Any]
TYPE = "application/vnd.ollama.image"
CLIENT = {"name": "test", "sha256": "cd" * 32}


def record(directory: Path, name: str, **more: Any) -> Data:
    """The same as a record of an inventory."""
    made = model(directory, name, **more)
    pins: Data = {"name": name, "service": "ollama", "source": made.source, "sha256": made.sha256}
    return {**pins, "context_tokens": made.context_tokens, **more}


def site(*models: Data, **options: Any) -> Data:
    data = {"services": ["ollama"], "models": [*models], "api_clients": [CLIENT]}
    return data | {f"ollama_{name}": value for name, value in options.items()}


def environment(data: Data) -> dict[str, str]:
    text = compose_project(read_settings(data)).services["ollama"]
    return dict(yaml.safe_load(text)["services"]["ollama"]["environment"])


def problems(data: Data) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        read_settings(data)
    return [problem.what for problem in refused.value.problems]


def manifest(store: Path, role: str) -> Data:
    path = store / "manifests/registry.ollama.ai/library" / role / "latest"
    return dict(json.loads(path.read_text()))


def layer(store: Path, role: str, kind: str) -> bytes:
    """The content of a role's last layer of a kind."""
    layers = manifest(store, role)["layers"]
    digest = [each["digest"] for each in layers if each["mediaType"] == f"{TYPE}.{kind}"][-1]
    return blob(store, digest).read_bytes()


def blob(store: Path, digest: str) -> Path:
    return store / "blobs" / digest.replace(":", "-")


def config(store: Path, role: str) -> Data:
    return dict(json.loads(blob(store, manifest(store, role)["config"]["digest"]).read_text()))


# --- The store (O1, O6, O7, O8) ---------------------------------------------------------------


def test_every_layer_has_the_digest_and_the_size_of_its_file(tmp_path: Path) -> None:
    store = bake([model(tmp_path, "brain", system_prompt="Be brief.")], tmp_path)
    written = manifest(store, "brain")
    for each in (written["config"], *written["layers"]):
        data = blob(store, each["digest"]).read_bytes()
        assert each["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert each["size"] == len(data)


def test_store_takes_less_than_a_fiftieth_of_the_weights(tmp_path: Path) -> None:
    brain = model(tmp_path, "brain", system_prompt="Be brief.", parameters={"temperature": 0})
    store = bake([brain], tmp_path)
    own = [path for path in store.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in own) < 0.02 * Path(brain.source).stat().st_size
    (link,) = [path for path in (store / "blobs").iterdir() if path.is_symlink()]
    assert link.name == f"sha256-{brain.sha256}" and str(link.readlink()).endswith("brain.gguf")


def test_prompt_and_stop_texts_reach_the_engine_unaltered(tmp_path: Path) -> None:
    prompt = 'Say """no""".\n\nNBSP:\u00a0here, full-width:\u3000here, ZWJ: 👨\u200d👩.\n'
    parameters = {"temperature": 0.2, "stop": ["\u3000", "a b"], "max_tokens": 99}
    brain = model(tmp_path, "brain", system_prompt=prompt, parameters=parameters)
    store = bake([brain], tmp_path)
    assert layer(store, "brain", "system").decode() == prompt
    told = {"num_ctx": 512, "temperature": 0.2, "num_predict": 99, "stop": ["\u3000", "a b"]}
    assert json.loads(layer(store, "brain", "params")) == told
    with served(store) as engine:
        assert engine.post("/api/show", json={"model": "brain"}).json()["system"] == prompt


def test_file_s_own_chat_template_is_the_one_that_is_used(tmp_path: Path) -> None:
    store = bake([model(tmp_path, "brain")], tmp_path)
    assert not [
        e for e in manifest(store, "brain")["layers"] if e["mediaType"].endswith("template")
    ]
    assert config(store, "brain") == {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": "144K",
        "file_type": "F32",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [manifest(store, "brain")["layers"][0]["digest"]]},
    }


@pytest.mark.parametrize(
    ("architecture", "renderer"),
    [("gemma4", "gemma4"), ("laguna", "laguna"), ("nemotron_h_moe", "nemotron-3-nano")],
)
def test_renderer_and_parser_of_an_architecture_are_set(
    tmp_path: Path, architecture: str, renderer: str
) -> None:
    path = write_gguf(tmp_path / "other.gguf", {"a.weight": ((64, 64), Kind.F32)}, {}, architecture)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    brain = model(tmp_path, "brain", source=str(path), sha256=sha256)
    store = bake([brain], tmp_path)
    written = config(store, "brain")
    assert (written["renderer"], written["parser"]) == (renderer, renderer)
    texts = [e["digest"] for e in manifest(store, "brain")["layers"] if "params" in e["mediaType"]]
    assert len(texts) == (2 if architecture == "gemma4" else 1)


def library(directory: Path, name: str, **more: Any) -> Model:
    """A model of Ollama's library on this machine, as `llmhost model lock` pins it."""
    home = directory / "library"
    home.mkdir()
    weights = Path(model(directory, "weights").source).read_bytes()
    blobs = {
        "application/vnd.docker.container.image.v1+json": b'{"model_format":"gguf","renderer":"r"}',
        f"{TYPE}.model": weights,
        f"{TYPE}.template": b"{{ .Prompt }}",
        f"{TYPE}.params": b'{"num_ctx":9,"top_k":3}',
    }
    entries: list[Data] = []
    for media, data in blobs.items():
        sha256 = hashlib.sha256(data).hexdigest()
        (home / f"sha256-{sha256}").write_bytes(data)
        entries.append({"mediaType": media, "digest": f"sha256:{sha256}", "size": len(data)})
    text = json.dumps({"schemaVersion": 2, "config": entries[0], "layers": entries[1:]})
    (home / "manifest").write_text(text)
    names = ["manifest", *(e["digest"].replace(":", "-") for e in entries)]
    files = [
        {"path": each, "sha256": hashlib.sha256((home / each).read_bytes()).hexdigest()}
        for each in names
    ]
    return model(directory, name, source="ollama:maker/small:1b", sha256=None, files=files, **more)


def test_role_of_a_library_model_has_its_layers_and_the_site_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = library(tmp_path, "brain", system_prompt="Be brief.")
    places = {path: str(tmp_path / "library" / Path(path).name) for path in embed.baked}
    monkeypatch.setattr(Model, "places", property(lambda _: places))
    store = bake([embed], tmp_path)
    kinds = [each["mediaType"].rpartition(".")[2] for each in manifest(store, "brain")["layers"]]
    assert kinds == ["model", "template", "params", "params", "system"]
    assert config(store, "brain")["renderer"] == "r"
    with served(store) as engine:
        (listed,) = engine.get("/api/tags").json()["models"]
        assert listed["name"] == "brain:latest"
        shown = engine.post("/api/show", json={"model": "brain"}).json()
        assert re.search(r"num_ctx +512\n", shown["parameters"] + "\n")
        assert re.search(r"top_k +3\n", shown["parameters"] + "\n")


def test_manifest_of_a_library_is_downloaded_by_its_digest(tmp_path: Path) -> None:
    embed = library(tmp_path, "embed")
    pin = embed.files[0].sha256
    address = embed.places["/models/embed/manifest"]
    assert address == f"https://registry.ollama.ai/v2/maker/small/blobs/sha256:{pin}"


def test_adapter_is_a_link_to_its_own_layer(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "lora.gguf", {}, {"general.type": "adapter"})
    store = bake([model(tmp_path, "brain", adapter=str(path))], tmp_path)
    assert layer(store, "brain", "adapter") == path.read_bytes()
    (entry,) = [e for e in manifest(store, "brain")["layers"] if "adapter" in e["mediaType"]]
    assert str(blob(store, entry["digest"]).readlink()).endswith("/models/brain.adapter.gguf")


def test_file_that_is_no_gguf_stops_the_build_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"a double has no weights")
    brain = model(tmp_path, "brain", source=str(path), sha256="ab" * 32)
    with pytest.raises(RuntimeError, match=r"brain\.gguf is not in GGUF format"):
        bake([brain], tmp_path)


def test_changed_prompt_changes_only_small_files_of_the_context(tmp_path: Path) -> None:
    before, after = (
        service_images(read_settings(site(record(tmp_path, "a", **more))))[0]
        for more in ({}, {"system_prompt": "Be brief."})
    )
    assert before.reference != after.reference and before.models == after.models


class Container:
    """A host whose container has this store; `docker exec` runs here."""

    def __init__(self, store: Path) -> None:
        self._store = store

    def check_output(self, command: str) -> str:
        inside = command.removeprefix("docker exec llmhost-ollama-1 ")
        inside = inside.replace("/opt/ollama", str(self._store))
        run = subprocess.run(inside.split(), capture_output=True, text=True, check=True)
        return run.stdout.strip().removeprefix(str(self._store.parent / "root"))


def test_verify_fails_if_another_gguf_runs(tmp_path: Path) -> None:
    data = site(record(tmp_path, "brain"))
    settings = read_settings(data)
    container: Any = Container(bake(settings.models, tmp_path))
    checks.test_weights_that_run_are_the_pinned_ones(container, settings)
    other = Path(model(tmp_path, "other", task="embed").source)
    (tmp_path / "root/models/brain.gguf").write_bytes(other.read_bytes())
    with pytest.raises(AssertionError, match="the weights of brain are another file"):
        checks.test_weights_that_run_are_the_pinned_ones(container, settings)
    bake([model(tmp_path, "brain", task="embed")], tmp_path)
    with pytest.raises(AssertionError, match="brain runs another file"):
        checks.test_weights_that_run_are_the_pinned_ones(container, settings)


# --- Resident models (O2) ---------------------------------------------------------------------


START = str(ROOT / "files/images/ollama/start")


@pytest.fixture
def inside(tmp_path: Path) -> dict[str, str]:
    """Variables as in a container that has the double as its command `ollama`."""
    command = tmp_path / "bin/ollama"
    command.parent.mkdir()
    command.write_bytes(program("ollama"))
    command.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "OLLAMA_MODELS": str(tmp_path / "store"),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "LLMHOST_RESIDENT_SECONDS": "0.2",
    }


@contextmanager
def started(variables: dict[str, str]) -> Iterator[httpx.Client]:
    """files/images/ollama/start, and a client of what it starts."""
    process = subprocess.Popen([START], env=variables, stderr=subprocess.DEVNULL, process_group=0)
    try:
        with httpx.Client(base_url=f"http://{variables['OLLAMA_HOST']}", timeout=10) as client:
            yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def health(variables: dict[str, str]) -> bool:
    return subprocess.run([START, "health"], env=variables, capture_output=True).returncode == 0


def until(condition: Callable[[], bool]) -> bool:
    for _ in range(300):
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_resident_that_was_unloaded_comes_back_and_stays(
    tmp_path: Path, inside: dict[str, str]
) -> None:
    roles = [record(tmp_path, "brain"), record(tmp_path, "vector", task="embed")]
    roles += [record(tmp_path, "search", resident=False)]
    roles[1]["context_tokens"] = 256
    variables = {**environment(site(*roles)), **inside}
    bake([Model(**each) for each in roles], tmp_path)

    def ends() -> dict[str, str]:
        return {e["name"]: e["expires_at"] for e in engine.get("/api/ps").json()["models"]}

    with started(variables) as engine:
        assert until(lambda: health(variables))
        # Unloaded, as another model does it, and loaded again by a request, for its usual time.
        engine.post("/api/chat", json={"model": "brain", "keep_alive": 0})
        engine.post("/api/generate", json={"model": "search", "keep_alive": 300, "prompt": "Hi"})
        engine.post("/api/embed", json={"model": "vector", "keep_alive": 0, "input": "Hi"})
        assert until(lambda: len(ends()) == 2 and min(ends().values()) > "2100")
        assert until(lambda: health(variables))


def test_resident_that_other_models_pushed_out_comes_back(
    tmp_path: Path, inside: dict[str, str]
) -> None:
    """Two roles on demand: while one is busy, an idle resident makes room for the other."""
    roles = [record(tmp_path, "brain"), record(tmp_path, "vector", task="embed", resident=False)]
    roles[1]["context_tokens"] = 256
    path = write_gguf(tmp_path / "long.gguf", {"a.weight": ((64, 64), Kind.F32)}, {})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    long = model(tmp_path, "long", source=str(path), sha256=sha256, resident=False)
    variables = {**environment(site(*roles)), **inside}
    assert variables["OLLAMA_MAX_LOADED_MODELS"] == "2"
    bake([*(Model(**each) for each in roles), long], tmp_path)

    def running() -> set[str]:
        return {each["name"] for each in engine.get("/api/ps").json()["models"]}

    variables["LLMHOST_RESIDENT_SECONDS"] = "6"
    body = {"model": "long", "prompt": "Hi", "options": {"num_predict": 500}}
    with started(variables) as engine:
        assert until(lambda: health(variables))
        with engine.stream("POST", "/api/generate", json=body) as answer:
            next(answer.iter_lines())
            engine.post("/api/embed", json={"model": "vector", "input": "Hi"})
            assert running() == {"long:latest", "vector:latest"}
        assert until(lambda: health(variables) and "brain:latest" in running())


def test_health_fails_while_a_resident_is_not_loaded_for_good(
    tmp_path: Path, inside: dict[str, str]
) -> None:
    store = bake([model(tmp_path, "brain")], tmp_path)
    (tmp_path / "ready").touch()
    with served(store) as engine:
        own = inside | {"OLLAMA_HOST": engine.base_url.netloc.decode(), "LLMHOST_EMBED": ""}
        brain = own | {"LLMHOST_GENERATE": "brain"}
        assert not health(brain)
        engine.post("/api/generate", json={"model": "brain"})
        assert not health(brain)
        engine.post("/api/generate", json={"model": "brain", "keep_alive": -1})
        assert health(brain) and health(own | {"LLMHOST_GENERATE": "other|brain"})
        assert not health(own | {"LLMHOST_GENERATE": "other"})


def test_all_resident_models_have_no_end(tmp_path: Path) -> None:
    roles = [record(tmp_path, "a"), record(tmp_path, "b", task="embed", context_tokens=256)]
    assert environment(site(*roles))["OLLAMA_KEEP_ALIVE"] == "-1s"
    roles[0]["resident"] = False
    assert environment(site(*roles))["OLLAMA_KEEP_ALIVE"] == "300s"


# --- Roles with the same weights (O3) ---------------------------------------------------------


def test_weights_are_counted_and_not_roles(tmp_path: Path) -> None:
    roles = [record(tmp_path, name, resident=name == "b") for name in "abc"]
    other = record(tmp_path, "other", task="embed", context_tokens=256, resident=False)
    told = environment(site(*roles, other))
    assert told["OLLAMA_MAX_LOADED_MODELS"] == "2"
    assert told["LLMHOST_GENERATE"] == "a|b|c" and told["LLMHOST_EMBED"] == ""
    plan = vram_plan(read_settings(site(*roles, other, gpu=0)), [8 * GIB])
    loads = plan.ledgers[0].loads
    assert [(load.model, load.resident) for load in loads] == [("a", True), ("other", False)]


def test_weights_of_several_roles_are_in_the_image_once(tmp_path: Path) -> None:
    settings = read_settings(site(*(record(tmp_path, name) for name in "abc")))
    (image,) = service_images(settings)
    assert [each.model for each in image.models] == ["a"]
    store = bake(settings.models, tmp_path)
    (link,) = [path for path in (store / "blobs").iterdir() if path.is_symlink()]
    assert link.readlink().name == "a.gguf"
    container: Any = Container(store)
    checks.test_weights_that_run_are_the_pinned_ones(container, settings)


def test_roles_with_the_same_weights_share_one_process(tmp_path: Path) -> None:
    store = bake([model(tmp_path, name) for name in "ab"], tmp_path)
    with served(store, OLLAMA_MAX_LOADED_MODELS="1") as engine:
        for name in "abab":
            engine.post("/api/generate", json={"model": name, "prompt": "Hi"}).raise_for_status()
    assert starts(store) == 1


@pytest.mark.parametrize("other", [{"context_tokens": 1024}, {"adapter": "lora.gguf"}])
def test_roles_that_would_reload_the_same_weights_are_refused(tmp_path: Path, other: Data) -> None:
    if "adapter" in other:
        path = write_gguf(tmp_path / "lora.gguf", {}, {"general.type": "adapter"})
        other = {"adapter": str(path)}
    data = site(record(tmp_path, "a"), record(tmp_path, "b", **other))
    assert any(
        "loads the same weights only once, and 'a' and 'b'" in each for each in problems(data)
    )


# --- Files that do not fit their task (O9), routes (O10), memory (O11) --------------------------


@pytest.mark.parametrize(
    ("file", "task", "told"),
    [
        ("generate", "embed", "its file has no pooling_type"),
        ("embed", "generate", "its file is an embedding model"),
    ],
)
def test_file_that_ollama_would_refuse_is_refused(
    tmp_path: Path, file: str, task: str, told: str
) -> None:
    role = record(tmp_path, "a", task=file, context_tokens=256)
    assert any(told in each for each in problems(site(role | {"task": task})))


def test_routes_of_other_clients_are_offered() -> None:
    offered = {route.path for route in catalogue()["ollama"].routes}
    assert offered >= {"/v1/models/{model}", "/v1/responses", "/v1/messages"}


@pytest.mark.parametrize(("limit", "mib"), [("8g", "1024"), ("1g", "128"), (None, "2048")])
def test_prompt_cache_is_in_proportion_to_the_limit(
    tmp_path: Path, limit: str | None, mib: str
) -> None:
    roles = [
        record(tmp_path, "a", parallel=3),
        record(tmp_path, "b", task="embed", context_tokens=256, parallel=3),
    ]
    told = environment(site(*roles, **({"memory_limit": limit} if limit else {})))
    assert told["LLAMA_ARG_CACHE_RAM"] == mib
    assert told["LLAMA_ARG_THREADS_HTTP"] == "7"
