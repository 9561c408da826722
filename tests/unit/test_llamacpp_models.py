"""Several models of the service llamacpp: what is rendered, refused, counted and checked.

tests/engines/test_llamacpp_models.py asks the real engine.
"""

import configparser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from testinfra.host import Host

from llmhost.checks.services import test_llamacpp as checks
from llmhost.gateway.routes import exposed_routes
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.sbom.models import about
from llmhost.stack.project import compose_project, service_images
from llmhost.units import GIB
from llmhost.vram.plan import vram_plan
from testbed import tiny_model
from tests.unit.model_files import lora_pair, write_lora

Data = dict[str, Any]

ADAPTERS = ("legal", "style")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models")
    tiny_model.write(home / "tiny.gguf")
    for name in ADAPTERS:
        write_lora(home / f"{name}.gguf", lora_pair("blk.0.attn_q.weight"))
    return home


def record(home: Path, name: str, **more: Any) -> Data:
    found = {"name": name, "source": str(home / "tiny.gguf"), "sha256": tiny_model.SHA256}
    if name in ADAPTERS:
        found["adapter"] = str(home / f"{name}.gguf")
    return {"service": "llamacpp", "context_tokens": 512, **found, **more}


def site(*models: Data, **more: Any) -> Data:
    clients = [{"name": "test", "sha256": "ab" * 32}]
    return {"services": ["llamacpp"], "models": [*models], "api_clients": clients, **more}


def several(home: Path, **more: Any) -> Data:
    return site(*(record(home, name) for name in ("base", *ADAPTERS)), **more)


def declared(data: Data) -> Data:
    text = compose_project(read_settings(data)).services["llamacpp"]
    return dict(yaml.safe_load(text)["services"]["llamacpp"])


def context(data: Data) -> dict[str, str]:
    image = next(each for each in service_images(read_settings(data)) if each.service == "llamacpp")
    return {file.path: file.data.decode() for file in image.context}


def presets(data: Data) -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read_string(context(data)["models.ini"].replace("version = 1\n", ""))
    return found


def test_each_model_has_a_process_with_its_own_adapter(home: Path) -> None:
    data = several(home, llamacpp_memory_limit="12g")
    command = declared(data)["command"]
    assert dict(pairwise(command))["--models-max"] == "3"
    assert "--lora" not in command and "--alias" not in command and "--model" not in command
    found = presets(data)
    assert found.sections() == ["base", *ADAPTERS]
    assert "lora" not in found["base"]
    assert [found[name]["lora"] for name in ADAPTERS] == [
        f"/models/{name}.adapter.gguf" for name in ADAPTERS
    ]
    assert {each["load-on-startup"] for each in map(found.__getitem__, found.sections())} == {
        "true"
    }
    assert "COPY models.ini /etc/llmhost/models.ini" in context(data)["Dockerfile"]
    assert declared(data)["environment"]["LLAMA_ARG_CACHE_RAM"] == "1024"  # 12 GiB / 4 / 3


def test_all_of_its_models_must_be_loaded(home: Path) -> None:
    check = declared(several(home))["healthcheck"]["test"]
    asked = [word.rpartition("=")[2] for word in check if "/props?model=" in word]
    assert asked == ["base", *ADAPTERS]


def test_one_model_is_on_the_command_line_and_not_in_the_image(home: Path) -> None:
    one = site(record(home, "legal"))
    command = declared(one)["command"]
    assert command[:2] == ["--alias", "legal"] and "--models-preset" not in command
    assert dict(pairwise(command))["--lora"] == "/models/legal.adapter.gguf"
    assert declared(one)["healthcheck"]["test"][-1].endswith("/health")
    assert [*context(one)] == ["Dockerfile"]
    changed = site(record(home, "legal", context_tokens=1024, parameters={"top_k": 3}))
    before, after = (declared(data)["image"] for data in (one, changed))
    assert before == after


def test_same_weights_are_in_the_image_once(home: Path) -> None:
    settings = read_settings(several(home))
    (image,) = service_images(settings)
    assert [each.model for each in image.models] == ["base", "legal-adapter", "style-adapter"]
    found = presets(several(home))
    assert {found[name]["model"] for name in found.sections()} == {"/models/base.gguf"}
    # What `llmhost verify` reads in the container, and what an SBOM names.
    for model in settings.models:
        files = settings.baked(model)
        assert files == {"/models/base.gguf": tiny_model.SHA256}
        assert about(model, files).files == files


def test_same_weights_in_parts_are_in_the_image_once(home: Path) -> None:
    names = [f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    files = [{"path": name, "sha256": "ab" * 32} for name in names]
    pins: Data = {"source": "hf:publisher/name", "revision": "12" * 20, "files": files}
    two = [{"service": "llamacpp", "name": name, **pins} for name in ("one", "two")]
    (image,) = service_images(read_settings(site(*two)))
    assert [each.model for each in image.models] == ["one"]
    assert presets(site(*two))["two"]["model"] == f"/models/one/{names[0]}"


def test_other_weights_stay_apart(home: Path) -> None:
    other = record(home, "other", source="https://x/m.gguf", sha256="1" * 64)
    (image,) = service_images(read_settings(site(record(home, "base"), other)))
    assert [each.model for each in image.models] == ["base", "other"]


def test_memory_of_each_is_counted(home: Path) -> None:
    def planned(data: Data) -> list[int]:
        (ledger,) = vram_plan(read_settings(data | {"llamacpp_gpu": 0}), [24 * GIB]).ledgers
        return [load.total_bytes for load in ledger.loads]

    (alone,) = planned(site(record(home, "base")))
    base, *others = planned(several(home))
    assert base == alone and len(others) == 2 and all(each > alone for each in others)


def test_models_are_needed(home: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(site())
    assert refused.value.problems[0].what == "service 'llamacpp' needs at least one model"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--lora", "/x.gguf"], "write the adapter of each model"),
        (["--lora_scaled", "/x.gguf:0.5"], "write the adapter of each model"),
        (["-mm", "/x.gguf"], "write each model's projector"),
        (["--model-draft", "/x.gguf"], "write each model's draft"),
        (["--models-max", "1"], "declare the models"),
    ],
)
def test_argument_for_one_of_several_is_refused(
    home: Path, arguments: list[str], what: str
) -> None:
    more = {"llamacpp_extra_arguments": arguments}
    with pytest.raises(SettingsError) as refused:
        read_settings(several(home, **more))
    (problem,) = refused.value.problems
    assert problem.what.startswith(f"service 'llamacpp' has {arguments[0]} in")
    assert problem.what.endswith(f"remove it and {what}")
    assert read_settings(site(record(home, "base"), **more))


def test_router_knows_the_names_of_models_that_fall_back(home: Path) -> None:
    """It would refuse them, and the gateway never changes the name in a request."""
    brain = record(home, "brain", service="ollama")
    fallbacks = {"services": ["llamacpp", "ollama"], "gateway_fallbacks": {"brain": ["legal"]}}
    data = several(home, **fallbacks)
    data["models"].append(brain)
    found = presets(data)
    assert found["legal"]["alias"] == "brain"
    assert not [name for name in ("base", "style") if "alias" in found[name]]


GPU = "load_tensors: offloaded {} layers to GPU"


@pytest.mark.parametrize(
    ("lines", "on_gpu", "said"),
    [
        ([("[40001] ", "31/31"), ("[40002] ", "31/31")], True, "offloaded 31/31 layers to GPU"),
        ([("[40001] ", "12/31"), ("[40002] ", "31/31")], False, "offloaded 12/31 layers to GPU"),
        ([("[40001] ", "131/31"), ("[40002] ", "31/31")], False, "offloaded 131/31 layers to GPU"),
        ([("[40001] ", "0/31"), ("[40001] ", "31/31"), ("[40002] ", "31/31")], True, "31/31"),
        ([("[40001] ", ""), ("[40002] ", "31/31")], False, "its build has no GPU support"),
    ],
    ids=["all", "the first only in part", "odd", "the last try counts", "one without"],
)
def test_every_process_must_be_on_the_gpu(
    lines: list[tuple[str, str]], on_gpu: bool, said: str
) -> None:
    text = "\n".join(
        f"{process}0.01.002 I {GPU.format(share) if share else 'load_tensors: loading'}"
        for process, share in lines
    )
    found, what = _judged(text, ["--models-max", "2"])
    assert found is on_gpu and said in what


def test_one_process_must_be_on_the_gpu() -> None:
    assert _judged(f"0.01.002 I {GPU.format('31/31')}", ["--model", "m"])[0]
    assert not _judged(f"0.01.002 I {GPU.format('30/31')}", ["--model", "m"])[0]


def test_log_without_one_of_the_processes_is_no_proof() -> None:
    with pytest.raises(pytest.skip.Exception, match="no longer reaches back"):
        _judged(f"[40001] {GPU.format('31/31')}", ["--models-max", "2"])


def _judged(log: str, command: list[str]) -> tuple[bool, str]:
    host = cast(Host, SimpleNamespace(check_output=lambda _: log))
    state = {"StartedAt": "2026-12-01T00:00:00+00:00"}
    return checks.computes_on_gpu(host, {"State": state, "Id": "1", "Config": {"Cmd": command}})


def test_embedding_models_with_the_same_weights_share_them_too() -> None:
    pins: Data = {"source": "https://x/m.gguf", "sha256": "1" * 64, "task": "embed"}
    two = [{"service": "embeddings", "name": name, **pins} for name in ("one", "two")]
    (image,) = service_images(read_settings(site(*two, services=["embeddings"])))
    assert [each.model for each in image.models] == ["one"]
    (preset,) = [file.data.decode() for file in image.context if file.path == "models.ini"]
    assert preset.count("model = /models/one.gguf\n") == 2


CHATS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")


def test_only_administrators_send_scales_where_there_are_adapters(home: Path) -> None:
    """Through nginx: tests/integration/test_gateway_lora.py."""
    for data, expected in (
        (several(home), CHATS),
        (site(record(home, "legal")), CHATS),
        (site(record(home, "base")), ()),
    ):
        found = {each.path: each.fields for each in exposed_routes(read_settings(data))}
        assert tuple(sorted(path for path, fields in found.items() if fields)) == expected
        assert all(each.refused == ("lora",) for each in found.values() if each)
