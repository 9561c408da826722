"""Every service of the catalogue renders into what Docker Compose is given."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from gguf import GGMLQuantizationType as Kind

from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.stack.project import compose_project, service_images
from testbed import tiny_model
from tests.unit.model_files import Tensors, write_gguf

ADAPTER = {"general.type": "adapter", "adapter.type": "lora"}
LORA: Tensors = {
    "blk.0.attn_q.weight.lora_a": ((4, 64), Kind.F32),
    "blk.0.attn_q.weight.lora_b": ((64, 4), Kind.F32),
}
DIGEST = "@sha256:" + "ab" * 32


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    return {"name": "tiny", "sha256": tiny_model.write(path), "source": str(path)}


@pytest.fixture
def site(weights: dict[str, str]) -> dict[str, Any]:
    return {
        "services": ["llamacpp"],
        "models": [{**weights}],
        "api_clients": [{"name": "test", "sha256": "cd" * 32}],
    }


def _service(data: dict[str, Any]) -> dict[str, Any]:
    (text,) = compose_project(read_settings(data)).services.values()
    service: dict[str, Any] = yaml.safe_load(text)["services"]["llamacpp"]
    return service


def test_project_includes_a_file_for_each_service(site: dict[str, Any]) -> None:
    project = compose_project(read_settings(site))
    included = yaml.safe_load(project.root)["include"]
    files = [file.path.removeprefix(f"{project.directory}/") for file in project.files]
    assert files == ["compose.yaml", *included]
    assert all(file.data.startswith(b"# Managed by llmhost") for file in project.files)


def test_service_runs_the_image_of_its_inputs(site: dict[str, Any]) -> None:
    (image,) = service_images(read_settings(site))
    assert _service(site)["image"] == image.reference
    assert _service(site)["pull_policy"] == "never"


def test_compose_option_changes_no_image(site: dict[str, Any]) -> None:
    before = service_images(read_settings(site))
    changed = site | {"llamacpp_threads": 3, "llamacpp_memory_limit": "2g"}
    assert service_images(read_settings(changed)) == before
    assert _service(changed)["mem_limit"] == "2g"


def test_context_is_declared_for_all_slots_together(site: dict[str, Any]) -> None:
    site["models"][0] |= {"context_tokens": 1000, "parallel": 3}
    command = _service(site)["command"]
    assert command[command.index("--ctx-size") + 1] == "3000"
    assert command[command.index("--parallel") + 1] == "3"


def test_extra_arguments_are_taken_literally(site: dict[str, Any]) -> None:
    site["llamacpp_extra_arguments"] = ["--chat-template", "a: {b} # $HOME \"'\n"]
    # Compose turns $$ back into $ (Compose specification, interpolation).
    assert _service(site)["command"][-1] == "a: {b} # $$HOME \"'\n"


def test_health_check_waits_for_the_model(site: dict[str, Any]) -> None:
    check = _service(site | {"llamacpp_load_timeout_seconds": 1234})["healthcheck"]
    assert check["start_period"] == "1234s"


def test_gpus_are_given_by_their_cdi_names(site: dict[str, Any]) -> None:
    names = ("nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2")
    project = compose_project(read_settings(site | {"llamacpp_gpu": [1, 2]}), {"llamacpp": names})
    service = yaml.safe_load(project.services["llamacpp"])["services"]["llamacpp"]
    device = {"driver": "cdi", "device_ids": [*names], "capabilities": ["gpu"]}
    assert service["deploy"]["resources"]["reservations"]["devices"] == [device]
    assert "deploy" not in _service(site)


UUID = "GPU-5b1c3ad6-0000-4000-8000-00000000000a"


@pytest.mark.parametrize(
    ("options", "gpus", "shared"),
    [
        ({"gpu": 1}, ("1",), False),
        ({"gpu": UUID, "gpu_shared": True}, (UUID,), True),
        ({"gpu": [0, UUID]}, ("0", UUID), False),
        ({"gpu_count": 2}, 2, False),
    ],
)
def test_gpus_are_asked_for_by_number_uuid_or_count(
    site: dict[str, Any], options: dict[str, Any], gpus: object, shared: bool
) -> None:
    data = {f"llamacpp_{option}": value for option, value in options.items()}
    request = read_settings(site | data).gpu_requests["llamacpp"]
    assert (request.gpus, request.shared) == (gpus, shared)


@pytest.mark.parametrize("gpu", [-1, "GPU-1", "gpu0", [], 1.5])
def test_gpu_that_is_neither_number_nor_uuid_is_refused(site: dict[str, Any], gpu: object) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(site | {"llamacpp_gpu": gpu})
    assert all(each.key.startswith("llamacpp_gpu") for each in refused.value.problems)


def test_gpus_are_named_or_counted_and_not_both(site: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(site | {"llamacpp_gpu": 0, "llamacpp_gpu_count": 1})
    assert "llamacpp_gpu_count are both set" in refused.value.problems[0].what


@pytest.mark.parametrize(
    "image", ["llama.cpp", "llama.cpp:latest", f"llama.cpp:1{DIGEST}0", f"$(id){DIGEST}", DIGEST]
)
def test_image_without_a_digest_is_refused(site: dict[str, Any], image: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(site | {"llamacpp_image": image})
    assert [problem.key for problem in refused.value.problems] == ["llamacpp_image"]


@pytest.mark.parametrize(
    "image", [f"10.0.0.1:5000/llama.cpp:forky-1{DIGEST}", f"ghcr.io/ggml-org/llama.cpp{DIGEST}"]
)
def test_image_with_a_digest_is_taken(site: dict[str, Any], image: str) -> None:
    (built,) = service_images(read_settings(site | {"llamacpp_image": image}))
    assert built.engine == image


OF_A_LIBRARY = {
    "source": "ollama:name:tag",
    "sha256": None,
    "files": [{"path": "manifest", "sha256": "ab" * 32}],
}


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"resident": False}, "resident = False"),
        ({"cache_type": "fp8"}, "cache_type = 'fp8'"),
        ({"system_prompt": "Be brief."}, "a system_prompt"),
        ({"parameters": {"stop": ["."]}}, "parameters.stop"),
        (OF_A_LIBRARY, "a source in Ollama's library"),
    ],
)
def test_llamacpp_refuses_what_it_would_ignore(
    site: dict[str, Any], model: dict[str, Any], told: str
) -> None:
    site["models"][0] |= model
    with pytest.raises(SettingsError) as refused:
        read_settings(site)
    assert any(told in problem.what for problem in refused.value.problems)


def test_llamacpp_is_told_of_adapter_parameters_and_task(
    site: dict[str, Any], weights: dict[str, str]
) -> None:
    adapter = write_gguf(Path(weights["source"]).with_name("lora.gguf"), LORA, ADAPTER)
    site["models"][0] |= {"adapter": str(adapter), "parameters": {"temperature": 0.5, "top_k": 3}}
    command = " ".join(_service(site)["command"])
    assert "--lora /models/tiny.adapter.gguf --temp 0.5 --top-k 3" in command
    (image,) = service_images(read_settings(site))
    assert [model.model for model in image.models] == ["tiny", "tiny-adapter"]
    site["models"][0] = {**weights, "task": "embed", "context_tokens": 512}
    site["llamacpp_environment"] = {"LLAMA_ARG_POOLING": "mean"}
    assert "--embedding --batch-size 512 --ubatch-size 512" in " ".join(_service(site)["command"])


def test_llamacpp_needs_a_model(site: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(site | {"models": []})
    assert "needs at least one model" in refused.value.problems[0].what
