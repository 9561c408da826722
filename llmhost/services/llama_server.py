"""What services that run llama.cpp's server share; Ollama starts it, too. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from llmhost.models.gguf import Gguf
from llmhost.models.llama import llama_options
from llmhost.options.model import Model, holders
from llmhost.system.files import File
from llmhost.units import MIB, bytes_of

SPARE_THREADS = 4
"""HTTP threads in addition to those of the answers, as llama.cpp has them by default."""

_CACHE_MIB = 2048
_LARGEST_CACHE_MIB = 8192  # llama.cpp's default (common/common.h, cache_ram_mib)


def server_variables(memory_limit: str | None, processes: int, requests: int) -> dict[str, str]:
    """For each of so many processes, with so many concurrent requests."""
    return {
        "LLAMA_ARG_CACHE_RAM": str(prompt_cache_mib(memory_limit, processes)),
        "LLAMA_ARG_THREADS_HTTP": str(requests + SPARE_THREADS),
    }


def stored_once(models: Iterable[Model]) -> tuple[Model, ...]:
    """The first of the models with the same weights: processes that map one file share memory."""
    return tuple({each.name: each for each in holders(models).values()}.values())


def preset(models: Sequence[Model]) -> File:
    """The list of models of a router, which starts a process for each (llama.cpp,
    tools/server/README.md, model presets)."""
    lines, at = ["version = 1"], holders(models)
    for model in models:
        options = {**llama_options(model, at[model.name]), "load-on-startup": "true"}
        lines += ["", f"[{model.name}]", *(f"{key} = {options[key]}" for key in options)]
    return File("models.ini", "\n".join([*lines, ""]))


def with_aliases(context: Iterable[File], names: Mapping[str, Sequence[str]]) -> Iterator[File]:
    """The same list, in which models have further names: a router refuses those that it does not
    know, unlike a server with one model."""
    for file in context:
        if file.path == "models.ini":
            text = file.data.decode()
            for model, others in names.items():
                text = text.replace(f"[{model}]\n", f"[{model}]\nalias = {','.join(others)}\n")
            yield replace(file, content=text)


def unpooled(
    model: Model, gguf: Gguf, environment: Mapping[str, str], *arguments: str
) -> Iterator[str]:
    """Why the server would refuse every request for an embedding: it has one vector for each token,
    unless the file, a variable or an argument says how they become one."""
    # 0 is none (llama.h, llama_pooling_type).
    declared = "LLAMA_ARG_POOLING" in environment or "--pooling" in arguments
    if model.task == "embed" and not gguf.number("pooling_type") and not declared:
        yield (
            "has no pooling_type, so llama.cpp refuses to embed with it; if you know its pooling,"
            f" declare it for all models of the service in {model.service}_environment, such as"
            " {'LLAMA_ARG_POOLING': 'mean'}"
        )


def prompt_cache_mib(memory_limit: str | None, processes: int) -> int:
    """MiB of host memory for finished prompts in each process: together a quarter of the
    container's memory limit."""
    if memory_limit is None:
        return _CACHE_MIB
    return min(bytes_of(memory_limit) // MIB // 4 // processes, _LARGEST_CACHE_MIB)
