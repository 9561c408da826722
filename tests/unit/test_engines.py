"""What the engines are told of their models, and what they refuse to be told."""

import argparse
import json
import re
import shutil
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from gguf import GGMLQuantizationType as Kind

from llmhost.inventory.problem import SettingsError
from llmhost.inventory.profiles import PROFILES
from llmhost.inventory.reader import read_settings
from llmhost.services import catalogue
from llmhost.stack.project import compose_project, service_images
from llmhost.units import GIB
from llmhost.vram.plan import VramPlan, vram_plan
from testbed import tiny_embedder, tiny_model
from tests.unit.model_files import write_gguf
from tests.unit.peft_adapters import tensors, write_adapter

Data = dict[str, Any]
CLIENT = {"name": "test", "sha256": "cd" * 32}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of every kind: `tiny.gguf`, `embed.gguf`, `rerank.gguf` and the directory `hub`."""
    directory = tmp_path_factory.mktemp("models")
    tiny_model.write(directory / "tiny.gguf")
    tiny_embedder.write(directory / "embed.gguf", "embed")
    tiny_embedder.write(directory / "rerank.gguf", "rerank")
    hub = directory / "hub"
    hub.mkdir()
    (hub / "config.json").write_text("{}")
    (hub / "model.safetensors").write_bytes(b"weights")
    return directory


def model(directory: Path, name: str, service: str, file: str = "tiny", **more: Any) -> Data:
    path = directory / f"{file}.gguf"
    sha256 = {"tiny": tiny_model.SHA256}.get(file) or tiny_embedder.write(path, file)  # type: ignore[arg-type]
    return {"name": name, "service": service, "source": str(path), "sha256": sha256} | more


def of_library(name: str, **more: Any) -> Data:
    files = [
        {"path": "manifest", "sha256": "aa" * 32},
        {"path": f"sha256-{'bb' * 32}", "sha256": "bb" * 32},
    ]
    source = "ollama:bona/bge-m3-korean:latest"
    return {"name": name, "service": "ollama", "source": source, "files": files} | more


def of_hub(directory: Path, **more: Any) -> Data:
    files = [{"path": "config.json", "sha256": "aa" * 32}]
    files += [{"path": "model.safetensors", "sha256": "bb" * 32}]
    source = str(directory / "hub")
    return {"name": "brain", "service": "vllm", "source": source, "files": files} | more


def site(service: str, *models: Data, **options: Any) -> Data:
    data = {"services": [service], "models": [*models], "api_clients": [CLIENT]}
    return data | {f"{service}_{name}": value for name, value in options.items()}


def container(data: Data) -> Data:
    """The first service as Compose is told of it."""
    (name, text), *_ = compose_project(read_settings(data)).services.items()
    return dict(yaml.safe_load(text)["services"][name])


def built_from(data: Data) -> dict[str, str]:
    """Text of each file of the build context."""
    (image,) = service_images(read_settings(data))
    return {file.path: file.data.decode() for file in image.build_files}


def problems(data: Data) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        read_settings(data)
    return [problem.what for problem in refused.value.problems]


def test_ollama_s_prompt_changes_its_image_and_no_weights(directory: Path) -> None:
    before, after = (
        service_images(read_settings(site("ollama", model(directory, "a", "ollama", **more))))[0]
        for more in ({}, {"system_prompt": "Be brief."})
    )
    assert before.reference != after.reference and before.models == after.models


def test_ollama_says_what_it_has_only_once(directory: Path) -> None:
    two = [model(directory, name, "ollama", parallel=at) for at, name in enumerate("ab", start=1)]
    (told,) = problems(site("ollama", *two))
    assert "has one parallel for all of its models" in told


DANGEROUS = {
    "vllm": (
        *("/pause", "/resume", "/sleep", "/wake_up", "/update_weights", "/init_weights_update"),
        *("/load_lora_adapter", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
        *("/collective_rpc", "/reset_prefix_cache", "/scale_elastic_ep", "/start_profile"),
        *("/server_info", "/invocations", "/detokenize", "/metrics", "/load", "/docs"),
        *("/v1/responses/resp_1", "/v1/responses/resp_1/cancel"),
    ),
    "llamacpp": (
        *("/slots", "/slots/0", "/props", "/models/load", "/models/unload", "/lora-adapters"),
        *("/metrics", "/completion", "/infill", "/apply-template", "/tools", "/cors-proxy"),
    ),
    "ollama": (
        *("/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/me"),
        *("/api/signout", f"/api/blobs/sha256:{'a' * 64}"),
    ),
}
"""Requests that change an engine for all clients, or show what others ask it."""


@pytest.mark.parametrize("service", DANGEROUS)
def test_dangerous_routes_are_nobody_s(service: str) -> None:
    offered = [route.path for route in catalogue()[service].routes]
    patterns = [re.sub(r"\{\w+\}", "[^/]+", path) for path in offered]
    passed = [
        path for path in DANGEROUS[service] if any(re.fullmatch(each, path) for each in patterns)
    ]
    assert passed == []


OF_OTHER_CLIENTS = {
    "POST /v1/responses": ("llamacpp", "ollama", "vllm"),
    "POST /v1/messages": ("llamacpp", "ollama", "vllm"),
    # Ollama 0.31 has no counting of tokens (server/routes.go).
    "POST /v1/messages/count_tokens": ("llamacpp", "vllm"),
    "GET /v1/models/{model}": ("ollama",),
    "POST /v1/score": ("vllm",),
}
"""Services whose engines have a route that clients use for inference."""


@pytest.mark.parametrize("route", OF_OTHER_CLIENTS)
def test_clients_of_openai_and_anthropic_are_served(route: str) -> None:
    method, path = route.split()
    for service in ("embeddings", "llamacpp", "ollama", "vllm"):
        found = [each for each in catalogue()[service].routes if each.path == path]
        served = [((method,), "inference")] if service in OF_OTHER_CLIENTS[route] else []
        assert [(each.methods, each.scope) for each in found] == served, service


def test_vllm_s_cache_has_the_declared_type_or_that_of_the_weights(directory: Path) -> None:
    names = {"f16": "float16", "bf16": "bfloat16", "fp8": "fp8"}
    for declared, name in names.items():
        command = container(site("vllm", of_hub(directory, cache_type=declared)))["command"]
        assert dict(pairwise(command))["--kv-cache-dtype"] == name
    assert "--kv-cache-dtype" not in container(site("vllm", of_hub(directory)))["command"]


def test_vllm_has_time_to_stop_and_logs_no_health_checks(directory: Path) -> None:
    service = container(site("vllm", of_hub(directory)))
    assert service["stop_grace_period"] == "45s"
    path = dict(pairwise(service["command"]))["--disable-access-log-for-endpoints"]
    assert any(word.endswith(path) for word in service["healthcheck"]["test"])


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("HF_HUB_OFFLINE", "0", "sets HF_HUB_OFFLINE, which llmhost sets itself"),
        ("PATH", "/tmp", "sets PATH, and programs are found by the PATH of the image"),
        ("CUDA_VISIBLE_DEVICES", "1", "the GPUs are those of vllm_gpu or vllm_gpu_count"),
        ("LLMHOST_X", "1", "llmhost reserves names that begin like this"),
        ("VLLM_API_KEY", "1", "sets VLLM_API_KEY, which looks like a secret"),
        ("EXTRA", "hf_abcdefghijklmnop", "sets EXTRA, which looks like a secret"),
    ],
)
def test_variable_that_is_not_the_site_s_is_refused(
    directory: Path, variable: str, value: str, told: str
) -> None:
    (problem,) = problems(site("vllm", of_hub(directory), environment={variable: value}))
    assert told in problem and value not in problem.replace(variable, "")


def test_variable_of_a_library_is_passed_on(directory: Path) -> None:
    given = {"NCCL_P2P_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", "VLLM_MAX_TOKENS": "3"}
    data = site("vllm", of_hub(directory), environment=given)
    assert given.items() <= container(data)["environment"].items()


def lora(directory: Path, name: str, rank: int = 8, base: str = "", **more: Any) -> Data:
    """An adapter in PEFT's format, whose weights do not depend on the hidden size."""
    weights = {key: each for key, each in tensors(rank).items() if "down_proj" in key}
    return write_adapter(directory / name, rank, weights, base_model_name_or_path=base, **more)


def test_vllm_offers_each_adapter_under_its_own_name(directory: Path) -> None:
    adapters = [lora(directory, "style", 8), lora(directory, "legal", 20, "Publisher/Hub")]
    data = site("vllm", of_hub(directory, adapters=adapters, shape=SHAPE), gpu=0)
    command = container(data)["command"]
    given = dict(pairwise(command))
    assert "--enable-lora" in command
    assert (given["--max-loras"], given["--max-lora-rank"]) == ("2", "32")
    at = command.index("--lora-modules")
    assert command[at + 1 : at + 3] == [
        "style=/models/brain.adapters/style",
        "legal=/models/brain.adapters/legal",
    ]
    (image,) = service_images(read_settings(data))
    baked = {each.model: [file.path for file in each.files] for each in image.models}
    assert baked["brain-adapter-style"] == [
        "/models/brain.adapters/style/adapter_config.json",
        "/models/brain.adapters/style/adapter_model.safetensors",
    ]
    (with_adapters,) = planned(data, 24).ledgers
    (without,) = planned(site("vllm", of_hub(directory, shape=SHAPE), gpu=0), 24).ledgers
    assert with_adapters.peak_bytes == without.peak_bytes  # within its fraction
    (more,), (less,) = with_adapters.loads, without.loads
    # Two of the larger rank, of 16 bits.
    added = SHAPE["adapter_values"] * 2 * 32 * 2
    assert more.memory.weights_bytes - less.memory.weights_bytes == added


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ({"rank": 513}, "its adapter 'style' has no rank from 1 to 512"),
        ({"base": "Qwen/Qwen3-8B"}, "its adapter 'style' was made for 'Qwen3-8B'"),
        ({"peft_type": "IA3"}, "its adapter 'style' is not a LoRA adapter"),
    ],
)
def test_adapter_that_does_not_fit_is_refused(directory: Path, spoil: Data, told: str) -> None:
    brain = of_hub(directory, adapters=[lora(directory, "style", **spoil)])
    assert any(told in each for each in problems(site("vllm", brain)))


def test_adapter_without_weights_or_with_a_model_s_name_is_refused(directory: Path) -> None:
    style = lora(directory, "style")
    Path(style["source"], "adapter_model.safetensors").unlink()
    (problem,) = problems(site("vllm", of_hub(directory, adapters=[style])))
    assert "its adapter 'style' has no adapter_model.safetensors" in problem
    brain = of_hub(directory, adapters=[lora(directory, "brain")])
    assert "'brain' is declared 2 times" in problems(site("vllm", brain))


def test_parsers_of_a_model_family_are_passed_on(directory: Path) -> None:
    brain = of_hub(directory, tool_parser="hermes", reasoning_parser="qwen3")
    command = container(site("vllm", brain))["command"]
    given = dict(pairwise(command))
    assert "--enable-auto-tool-choice" in command
    assert (given["--tool-call-parser"], given["--reasoning-parser"]) == ("hermes", "qwen3")
    plain = container(site("vllm", of_hub(directory)))["command"]
    assert not {"--enable-auto-tool-choice", "--reasoning-parser"} & {*plain}
    embedder = of_hub(directory, task="embed", tool_parser="hermes")
    assert any("has parsers for text" in each for each in problems(site("vllm", embedder)))


@pytest.mark.parametrize("profile", ["search", "vllm"])
def test_qwen_of_a_profile_has_its_parsers(profile: str) -> None:
    (model,) = [each for each in PROFILES[profile].defaults["models"] if each["service"] == "vllm"]
    assert "Qwen3" in model["source"]
    assert (model["tool_parser"], model["reasoning_parser"]) == ("hermes", "qwen3")


def test_gpt_oss_has_its_vocabulary_or_is_refused(directory: Path) -> None:
    name = "openai/gpt-oss-20b"
    (problem,) = problems(site("vllm", of_hub(directory, base_models=[name])))
    assert "downloads o200k_base.tiktoken at each start of gpt-oss" in problem
    place = directory / "hub/encodings/o200k_base.tiktoken"
    place.parent.mkdir()
    place.write_text("a vocabulary")
    brain = of_hub(directory, base_models=[name])
    brain["files"] += [{"path": "encodings/o200k_base.tiktoken", "sha256": "cc" * 32}]
    environment = container(site("vllm", brain))["environment"]
    assert environment["TIKTOKEN_ENCODINGS_BASE"] == "/models/brain/encodings"
    assert (
        "TIKTOKEN_ENCODINGS_BASE" not in container(site("vllm", of_hub(directory)))["environment"]
    )


def test_vllm_serves_the_baked_directory_under_its_role(directory: Path) -> None:
    brain = of_hub(directory, context_tokens=8192, parallel=4, cache_type="fp8")
    brain["parameters"] = {"temperature": 0.6, "repeat_penalty": 1.1}
    command = container(site("vllm", brain, extra_arguments=["--enable-prefix-caching"]))["command"]
    assert command[0] == "/models/brain" and command[-1] == "--enable-prefix-caching"
    options = dict(zip(command[1:-1:2], command[2:-1:2], strict=True))
    assert options["--served-model-name"] == "brain"
    assert (options["--max-model-len"], options["--max-num-seqs"]) == ("8192", "4")
    assert (options["--kv-cache-dtype"], options["--gpu-memory-utilization"]) == ("fp8", "0.9")
    given = json.loads(options["--override-generation-config"])
    assert given == {"temperature": 0.6, "repetition_penalty": 1.1}


TENSOR, PIPELINE = "--tensor-parallel-size", "--pipeline-parallel-size"


@pytest.mark.parametrize(
    ("options", "parallel"),
    [
        ({}, {}),
        ({"gpu": 0}, {}),
        ({"gpu": [0, 1]}, {TENSOR: "2"}),
        ({"gpu_count": 4}, {TENSOR: "4"}),
        ({"gpu_count": 4, "tensor_parallel": 2}, {TENSOR: "2", PIPELINE: "2"}),
        ({"gpu": [0, 1], "tensor_parallel": 1}, {PIPELINE: "2"}),
    ],
)
def test_vllm_uses_every_gpu_that_it_is_given(
    directory: Path, options: Data, parallel: Data
) -> None:
    command = container(site("vllm", of_hub(directory), **options))["command"]
    given = dict(pairwise(command))
    assert {name: given[name] for name in (TENSOR, PIPELINE) if name in given} == parallel


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"gpu": [0, 1, 2], "tensor_parallel": 2}, "is 2, which does not divide the 3 GPUs"),
        ({"tensor_parallel": 2}, "is 2, which does not divide the 1 GPU"),
        ({"extra_arguments": ["-tp", "2"]}, "has -tp"),
        ({"extra_arguments": ["--tensor_parallel_size", "4"]}, "has --tensor_parallel_size"),
        ({"extra_arguments": ["--data-parallel-size=2"]}, "has --data-parallel-size=2"),
        (
            {"extra_arguments": ["--gpu_memory_utilization=0.95"]},
            "has --gpu_memory_utilization=0.95",
        ),
        ({"extra_arguments": ["--gpu-memory-utilization=0.5"]}, "has --gpu-memory-utilization=0.5"),
    ],
)
def test_vllm_refuses_what_the_memory_plan_would_not_know(
    directory: Path, options: Data, told: str
) -> None:
    (problem,) = problems(site("vllm", of_hub(directory), **options))
    assert told in problem


OPTIONS_OF_VLLM = (
    *("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--data-parallel-size"),
    *("-dp", "--data-parallel-rank", "-dpn", "--data-parallel-size-local", "-dpl"),
    *("--gpu-memory-utilization", "--max-model-len", "--max-num-seqs", "--max-num-batched-tokens"),
    *("--served-model-name", "--model", "--model-impl", "--model-loader-extra-config", "--config"),
    *(
        "--config-format",
        "--api-key",
        "--api-server-count",
        "--host",
        "--port",
        "--seed",
        "--dtype",
    ),
    *("--prefill-context-parallel-size", "-pcp", "--decode-context-parallel-size", "-dcp"),
    *("--enable-prefix-caching", "--enforce-eager", "--kv-cache-memory-bytes", "--tokenizer", "-r"),
    *("--max-log-len", "--max-logprobs", "--generation-config", "--hf-overrides", "--master-port"),
)
"""Some of vLLM's names (vllm/engine/arg_utils.py, vllm/entrypoints/openai/cli_args.py): those that
llmhost writes itself, and their neighbours."""
OWN_OF_VLLM = {
    *("tensor_parallel_size", "tp", "pipeline_parallel_size", "pp", "data_parallel_size", "dp"),
    *("gpu_memory_utilization", "max_model_len", "max_num_seqs", "served_model_name", "model"),
    *("config", "api_key", "host", "port"),
}


def test_vllm_refuses_what_argparse_reads_as_such_an_argument(directory: Path) -> None:
    """Python's argparse is the judge, as vLLM uses it."""
    parser = argparse.ArgumentParser(add_help=False)
    for name in OPTIONS_OF_VLLM:
        parser.add_argument(name)
    begun = {name[:length] for name in OPTIONS_OF_VLLM for length in range(2, len(name) + 1)}
    model = of_hub(directory)
    own: list[str] = []
    others: list[str] = []
    for flag in sorted(begun - {"--"}):
        try:
            read = parser.parse_known_args([flag, "1"])[0]
        except SystemExit:  # ambiguous
            continue
        (meant,) = (name for name, value in vars(read).items() if value)
        (own if meant in OWN_OF_VLLM else others).append(flag)
        data = site("vllm", model, extra_arguments=[flag, "1"])
        with pytest.raises(SettingsError) if meant in OWN_OF_VLLM else nullcontext():
            assert read_settings(data)
    assert {"--gpu-mem", "--served-model", "-t"} <= {*own} and "--gene" in others


def test_abbreviation_is_named(directory: Path) -> None:
    (problem,) = problems(site("vllm", of_hub(directory), extra_arguments=["--gpu_mem=0.5"]))
    assert "has --gpu_mem=0.5, short for --gpu-memory-utilization" in problem


def test_llamacpp_has_no_abbreviations(directory: Path) -> None:
    """llama.cpp refuses this itself; `--ctx-size-draft` begins with another name."""
    weights = {"name": "m", "source": gguf(directory / "m.gguf"), "sha256": "1" * 64}
    for arguments in (["--ctx", "1"], ["--ctx-size-draft", "1"]):
        assert read_settings(
            site("llamacpp", {**weights, "service": "llamacpp"}, extra_arguments=arguments)
        )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--ctx-size", "131072"],
            "has --ctx-size",
        ),
        (["--ctx_size", "131072"], "has --ctx_size"),
        (["-np", "8"], "has -np"),
        (["--docker-repo", "ai/gemma3"], "has --docker-repo"),
        (["--port", "9000"], "has --port"),
    ],
)
def test_llamacpp_refuses_what_the_memory_plan_would_not_know(
    directory: Path, arguments: list[str], told: str
) -> None:
    weights = {"name": "m", "source": gguf(directory / "m.gguf"), "sha256": "1" * 64}
    data = site("llamacpp", {**weights, "service": "llamacpp"}, extra_arguments=arguments)
    (problem,) = problems(data)
    assert told in problem


SHAPE = {
    "weights_bytes": 16_060_522_496,
    "cache_values": 2 * 32 * 8 * 128,
    "hidden_size": 4096,
    "vocabulary_size": 128_256,
    "adapter_values": 2_886_144,
}


def planned(data: Data, *gpus_gib: float) -> VramPlan:
    settings = read_settings(data)
    return vram_plan(settings, [int(each * GIB) for each in gpus_gib])


def test_vllm_s_weights_are_divided_by_the_gpus_that_it_uses(directory: Path) -> None:
    brain = of_hub(directory, shape=SHAPE)
    (alone, _) = planned(site("vllm", brain, gpu=0), 24, 24).ledgers
    together = planned(site("vllm", brain, gpu=[0, 1]), 24, 24).ledgers
    halves = [load.memory.weights_bytes for ledger in together for load in ledger.loads]
    assert halves == [alone.loads[0].memory.weights_bytes // 2] * 2
    assert [ledger.fits for ledger in planned(site("vllm", brain, gpu=[0, 1]), 12, 12).ledgers] == [
        True,
        True,
    ]
    assert not planned(site("vllm", brain, gpu=0), 12, 12).fits


@pytest.mark.parametrize(
    ("name", "text", "context", "told"),
    [
        ("bert", '{"max_seq_length": 256}', 512, "has max_seq_length 256, which vLLM does not"),
        ("xlnet", '{"max_seq_length": 256}', 257, "has max_seq_length 256, which vLLM does not"),
        ("bert", '{"max_seq_length": 256}', 256, ""),
        ("bert", '{"max_seq_length": null}', 512, ""),
        ("bert", '{"transformer_task": "feature-extraction"}', 512, ""),
        ("bert", "[256]", 512, ""),
        ("bert", "[" * 100_000, 512, ""),
        ("none", '{"max_seq_length": 256}', 512, ""),
    ],
)
def test_context_beyond_sentence_transformers_is_refused(
    directory: Path, tmp_path: Path, name: str, text: str, context: int, told: str
) -> None:
    """all-MiniLM-L6-v2 has 512 positions, and vLLM ends with "User-specified max_model_len (512) is
    greater than the derived max_model_len"."""
    shutil.copytree(directory / "hub", tmp_path / "hub")
    (tmp_path / "hub" / f"sentence_{name}_config.json").write_text(text)
    data = site("vllm", of_hub(tmp_path, task="embed", context_tokens=context))
    if told:
        (problem,) = problems(data)
        assert f"'brain': context_tokens is {context}, and its file for" in problem
        assert told in problem
    else:
        read_settings(data)


@pytest.mark.parametrize(
    ("sizes", "options", "told"),
    [
        (
            {"attention_heads": 32},
            {"gpu_count": 3},
            "32 attention heads, which 3 GPUs cannot divide",
        ),
        ({"attention_heads": 32}, {"gpu_count": 3, "tensor_parallel": 1}, ""),
        ({"attention_heads": 32, "kv_heads": 8}, {"gpu_count": 4}, ""),
        ({"attention_heads": 32, "kv_heads": 2}, {"gpu_count": 8}, ""),
        ({"attention_heads": 24, "kv_heads": 6}, {"gpu_count": 4}, "6 heads of keys and values"),
        ({"layers": 2}, {"gpu_count": 4, "tensor_parallel": 1}, "are divided into 4 stages"),
        ({"blocks": 76}, {"gpu_count": 8}, "has weights in 76 blocks, which 8 GPUs cannot divide"),
        ({"blocks": 1}, {"gpu_count": 2}, "has weights in 1 block, which 2 GPUs cannot divide"),
        ({"blocks": 76}, {"gpu_count": 4}, ""),
        ({"blocks": 6}, {"gpu_count": 4, "extra_arguments": ["--enable-expert-parallel"]}, ""),
    ],
)
def test_model_that_its_gpus_cannot_divide_is_refused(
    directory: Path, sizes: Data, options: Data, told: str
) -> None:
    data = site("vllm", of_hub(directory, shape={**SHAPE, **sizes}), **options)
    if not told:
        read_settings(data)
        return
    (problem,) = problems(data)
    assert told in problem


def test_gpus_beyond_the_heads_of_the_cache_repeat_it(directory: Path) -> None:
    """vLLM divides the cache by heads, and each GPU has one at least."""

    def cache(heads: int, gpus: int) -> int:
        brain = of_hub(directory, shape={**SHAPE, "kv_heads": heads})
        ledgers = planned(site("vllm", brain, gpu_count=gpus), *[48] * gpus).ledgers
        return ledgers[0].loads[0].memory.cache_bytes

    assert cache(8, 8) * 2 == cache(8, 4) == cache(4, 4) == cache(4, 8)
    assert cache(1, 8) == cache(1, 1)


def test_graphs_are_not_counted_where_vllm_captures_none(directory: Path) -> None:
    brain, eager = of_hub(directory, shape=SHAPE), ["--enforce-eager"]
    (captured,) = planned(site("vllm", brain, gpu=0), 24).ledgers
    (without,) = planned(site("vllm", brain, gpu=0, extra_arguments=eager), 24).ledgers
    assert captured.loads[0].total_bytes - without.loads[0].total_bytes == 3 * 20 * 2**20


def test_service_whose_memory_nothing_tells_needs_a_fraction(directory: Path) -> None:
    formulas = of_hub(directory, service="docling", source=str(directory / "hub"))
    data = site("docling", formulas, gpu=0)
    assert planned(data, 16).uncounted == (
        "the GPU memory of 'docling' is unknown; set docling_gpu_fraction",
    )
    (ledger,) = planned(data | {"docling_gpu_fraction": 0.25}, 16).ledgers
    assert dict(ledger.at_peak()) == {"docling": 4 * GIB}


def test_vllm_can_write_and_run_only_what_it_compiles(directory: Path) -> None:
    service = container(site("vllm", of_hub(directory), timezone="Asia/Seoul"))
    assert service["read_only"] is True and service["shm_size"] == "4g"
    assert service["tmpfs"] == ["/tmp:mode=1777,noexec"]
    assert [mount["target"] for mount in service["volumes"]] == ["/var/cache/vllm"]
    environment = service["environment"]
    assert environment["HF_HUB_OFFLINE"] == "1" and environment["TZ"] == "Asia/Seoul"


PARTS = [f"q4/m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]


def in_parts(service: str, *paths: str, **more: Any) -> Data:
    files = [{"path": path, "sha256": "ab" * 32} for path in paths]
    pins = {"source": "hf:publisher/name", "revision": "12" * 20, "files": files}
    return {"name": "large", "service": service, **pins, **more}


def test_file_in_parts_is_baked_whole_and_loaded_by_its_first(directory: Path) -> None:
    data = site("llamacpp", in_parts("llamacpp", *reversed(PARTS)))
    command = container(data)["command"]
    assert dict(pairwise(command))["--model"] == f"/models/large/{PARTS[0]}"
    (image,) = service_images(read_settings(data))
    (weights,) = image.models
    assert {file.path for file in weights.files} == {f"/models/large/{path}" for path in PARTS}
    preset = built_from(site("embeddings", in_parts("embeddings", *PARTS, task="embed")))
    assert f"model = /models/large/{PARTS[0]}" in preset["models.ini"]


def test_part_of_a_file_is_refused_by_its_name(directory: Path) -> None:
    alone = {"name": "large", "service": "ollama", "sha256": "ab" * 32, "revision": "12" * 20}
    told = problems(site("ollama", alone | {"source": f"hf:publisher/name/{PARTS[1]}"}))
    assert any("is part 2 of 3 of a file" in each for each in told)
    told = problems(site("llamacpp", in_parts("llamacpp", *PARTS[:2])))
    assert any(f"lacks {PARTS[2]}" in each for each in told)
    told = problems(site("ollama", in_parts("ollama", *PARTS)))
    assert any("cannot run 'large' with a GGUF file in several parts" in each for each in told)


def gguf(path: Path, architecture: str = "llama", vocabulary: str = "llama") -> str:
    about = {"tokenizer.ggml.model": vocabulary}
    return str(write_gguf(path, {"a.weight": ((4, 4), Kind.F32)}, about, architecture))


def test_projector_and_draft_are_baked_and_loaded(directory: Path) -> None:
    projector = gguf(directory / "mmproj.gguf", "clip")
    draft = gguf(directory / "draft.gguf")
    data = site("llamacpp", model(directory, "m", "llamacpp", projector=projector, draft=draft))
    given = dict(pairwise(container(data)["command"]))
    assert given["--mmproj"] == "/models/m.projector.gguf"
    assert given["--model-draft"] == "/models/m.draft.gguf"
    assert given["--spec-type"] == "draft-simple"
    (image,) = service_images(read_settings(data))
    assert [each.model for each in image.models] == ["m", "m-projector", "m-draft"]


def test_projector_or_draft_that_does_not_fit_is_refused(directory: Path) -> None:
    whole, projector = gguf(directory / "whole.gguf"), gguf(directory / "clip.gguf", "clip")
    other = gguf(directory / "other.gguf", vocabulary="gpt2")
    found = {
        "projector": {whole: "is a whole model, not a projector", "gone": "does not exist"},
        "draft": {projector: "is a projector", other: "has another vocabulary than the model"},
    }
    for option, cases in found.items():
        for place, told in cases.items():
            told_of = problems(
                site("llamacpp", model(directory, "m", "llamacpp", **{option: place}))
            )
            assert any(f"its {option} {told}" in each for each in told_of), (place, told_of)


@pytest.mark.parametrize(("limit", "mib"), [("8g", "2048"), ("64g", "8192"), (None, "2048")])
def test_llamacpp_s_cache_and_threads_are_in_proportion(
    directory: Path, limit: str | None, mib: str
) -> None:
    options = {"memory_limit": limit} if limit else {}
    data = site("llamacpp", model(directory, "m", "llamacpp", parallel=6), **options)
    environment = container(data)["environment"]
    assert environment["LLAMA_ARG_CACHE_RAM"] == mib
    assert environment["LLAMA_ARG_THREADS_HTTP"] == "10"


def cache_of(data: Data, *gpus: str) -> str:
    text = compose_project(read_settings(data), {"vllm": gpus}).services["vllm"]
    document = yaml.safe_load(text)
    (mount,) = document["services"]["vllm"]["volumes"]
    assert document["volumes"] == {mount["source"]: {"labels": {"llmhost.cache": "vllm"}}}
    places = [*document["services"]["vllm"]["environment"].values()]
    assert not any(place.startswith("/models/") for place in places)
    return str(mount["source"])


def test_what_vllm_compiles_is_kept_for_the_same_image_gpu_and_options(directory: Path) -> None:
    brain = of_hub(directory)
    data = site("vllm", brain, gpu=0)
    kept = cache_of(data, "gpu=a")
    assert cache_of(data | {"vllm_port": 9000, "vllm_memory_limit": "9g"}, "gpu=a") == kept
    others = {
        cache_of(data, "gpu=b"),
        cache_of(data | {"vllm_image": f"vllm/other:1@sha256:{'1' * 64}"}, "gpu=a"),
        cache_of(data | {"vllm_extra_arguments": ["--enforce-eager"]}, "gpu=a"),
        cache_of(site("vllm", brain | {"context_tokens": 2048}, gpu=0), "gpu=a"),
    }
    assert len(others - {kept}) == 4


def test_embedding_and_reranking_models_share_a_service(directory: Path) -> None:
    models = [model(directory, task, "embeddings", task, task=task) for task in ("embed", "rerank")]
    data = site("embeddings", *(each | {"context_tokens": 256} for each in models))
    preset = built_from(data)["models.ini"]
    assert "[embed]\nmodel = /models/embed.gguf" in preset and "reranking = true" in preset
    check = container(data)["healthcheck"]["test"]
    assert [part for part in check if "model=" in part] == [
        "http://127.0.0.1:8080/props?model=embed",
        "http://127.0.0.1:8080/props?model=rerank",
    ]


UNFIT: dict[str, tuple[str, Data]] = {
    "a system_prompt": ("vllm", {"system_prompt": "Be brief."}),
    "parameters.seed": ("vllm", {"parameters": {"seed": 1}}),
    "cache_type = 'q8_0'": ("vllm", {"cache_type": "q8_0"}),
    "resident = False": ("vllm", {"resident": False}),
    "weights in a single file": ("vllm", {}),
    "a tool_parser": ("llamacpp", {"tool_parser": "hermes"}),
    "a reasoning_parser": ("ollama", {"reasoning_parser": "qwen3"}),
    "a projector": ("ollama", {"projector": "mmproj.gguf"}),
    "a draft": ("embeddings", {"task": "embed", "draft": "draft.gguf"}),
    "adapters": ("llamacpp", {"adapters": [{"name": "style", "source": "style"}]}),
    "task = 'generate'": ("embeddings", {}),
    "parameters.top_k": ("embeddings", {"task": "embed", "parameters": {"top_k": 1}}),
    "task = 'rerank'": ("ollama", {"task": "rerank"}),
    "cache_type = 'q5_1'": ("ollama", {"cache_type": "q5_1"}),
}


@pytest.mark.parametrize("what", UNFIT)
def test_option_that_an_engine_would_ignore_is_refused(directory: Path, what: str) -> None:
    service, more = UNFIT[what]
    told = problems(site(service, model(directory, "m", service, **more)))
    assert any(f"service '{service}' cannot run 'm' with {what}" in each for each in told)


def test_unknown_parameter_is_refused(directory: Path) -> None:
    data = site("ollama", model(directory, "m", "ollama", parameters={"temprature": 1}))
    assert "unknown key" in problems(data)


def test_missing_file_of_a_directory_is_named(directory: Path) -> None:
    brain = of_hub(directory)
    brain["files"] = [*brain["files"], {"path": "tokenizer.json", "sha256": "cc" * 32}]
    assert "'brain': its source does not exist on the controller, file tokenizer.json" in problems(
        site("vllm", brain)
    )


def test_services_on_one_gpu_start_one_after_another(directory: Path) -> None:
    names = ("llamacpp", "ollama", "vllm", "embeddings")
    models = [model(directory, f"m-{name}", name) for name in names[:2]]
    models += [of_hub(directory), model(directory, "e", "embeddings", "embed", task="embed")]
    models[-1]["context_tokens"] = 256
    data = {"services": [*names], "models": models, "api_clients": [CLIENT]}
    devices = {"llamacpp": ("gpu=a",), "ollama": ("gpu=b",), "vllm": ("gpu=a",)}
    texts = compose_project(read_settings(data), devices).services
    after = {
        name: list(yaml.safe_load(text)["services"][name].get("depends_on", ()))
        for name, text in texts.items()
    }
    assert after == {"llamacpp": [], "ollama": [], "vllm": ["llamacpp"], "embeddings": []}


@pytest.mark.parametrize("service", ["llamacpp", "embeddings"])
def test_embedder_whose_pooling_is_unknown_is_refused(directory: Path, service: str) -> None:
    """The real llama.cpp answers each request to it with 400: pooling type 'none' is not OAI
    compatible."""
    source = gguf(directory / "m.gguf", "qwen3")
    embedder = {"name": "m", "source": source, "sha256": "1" * 64, "task": "embed"}
    data = site(service, {**embedder, "service": service, "context_tokens": 256})
    assert any("has no pooling_type" in each for each in problems(data))
    declared = {f"{service}_environment": {"LLAMA_ARG_POOLING": "last"}}
    read_settings(data | declared)


def test_offline_check_asks_each_model() -> None:
    models = [
        {"name": name, "source": "https://x/m.gguf", "sha256": "1" * 64, "task": task}
        for name, task in (("vector", "embed"), ("order", "rerank"))
    ]
    data = site("embeddings", *({**each, "service": "embeddings"} for each in models))
    settings = read_settings(data)
    (service,) = settings.catalogue
    requests = service.requests(settings.models_of("embeddings"))
    assert [each.path for each in requests] == ["/v1/embeddings", "/v1/rerank"]
