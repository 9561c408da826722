"""Whether a model can be made of its source for its service. Pure."""

from collections.abc import Iterator

from llmhost.options.derive import Derive
from llmhost.options.gguf_parts import part_of
from llmhost.options.model_source import HubSource, OllamaSource, parse_source

_GGUF_SERVICES = ("llamacpp", "ollama", "embeddings")
_NO_APPS = (*_GGUF_SERVICES, "vllm", "docling")
_TASKS = {
    "perplexity": ("generate",),
    "agreement": ("embed", "rerank"),
    "ndcg": ("embed",),
    "rerank": ("rerank",),
}
"""The tasks that a measure is for."""


def unfit(derive: Derive, source: str, service: str, task: str) -> Iterator[str]:
    """Why it cannot be made; each text continues "derive"."""
    yield from _for_service(derive, service)
    yield from _of_source(derive, source)
    if derive.onnx and task == "generate":
        yield (
            "makes ONNX files, and no service serves a model with task 'generate' from these; use"
            " quantize with llamacpp or ollama, compress with vllm, or correct the task"
        )
    if derive.compress and task != "generate":
        yield (
            f"compresses a model that generates, and this one has the task '{task}'; correct the"
            " task, or remove derive"
        )
    for each in derive.evaluate:
        if task not in _TASKS[each.measure]:
            tasks = " or ".join(f"'{name}'" for name in _TASKS[each.measure])
            yield (
                f"measures {each.measure}, which is for models with task {tasks},"
                f" and this one has '{task}'; write another measure, or correct the task"
            )


def _for_service(derive: Derive, service: str) -> Iterator[str]:
    if derive.onnx and service in _NO_APPS:
        yield (
            f"makes ONNX files, which the service '{service}' does not read; write the name of an"
            " app, or use quantize"
        )
    if derive.quantize and service not in _GGUF_SERVICES:
        services = ", ".join(_GGUF_SERVICES)
        yield (
            f"makes a GGUF file, which the service '{service}' does not read; write one of"
            f" {services}{', or use compress' if service == 'vllm' else ''}"
        )
    if derive.compress and service != "vllm":
        other = "quantize" if service in _GGUF_SERVICES else "onnx"
        yield (
            f"compresses a model for vLLM, which the service '{service}' is not; write 'vllm', or"
            f" use {other}"
        )


def _of_source(derive: Derive, source: str) -> Iterator[str]:
    origin = parse_source(source)
    repository = "write the original's source, such as 'hf:PUBLISHER/REPOSITORY'"
    if isinstance(origin, OllamaSource):
        yield (
            f"makes a model from Ollama's library, whose files are quantized already; {repository}"
        )
    elif part_of(source):
        yield (
            "makes a model from one GGUF file or from safetensors, not from a file in parts;"
            f" {repository}"
        )
    elif derive.compress and _is_file(origin):
        yield "compresses a whole repository; write one, such as 'hf:PUBLISHER/NAME'"
    elif derive.onnx and isinstance(origin, HubSource) and origin.file:
        yield "makes ONNX files from a whole repository; write one, such as 'hf:PUBLISHER/NAME'"


def _is_file(origin: HubSource | str) -> bool:
    """Whether a source is surely no repository."""
    if isinstance(origin, HubSource):
        return bool(origin.file)
    return "://" in origin or origin.endswith((".gguf", ".safetensors"))
