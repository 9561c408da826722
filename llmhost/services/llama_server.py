"""Variables of llama.cpp's server, which Ollama starts too, for its memory and threads. Pure."""

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


def prompt_cache_mib(memory_limit: str | None, processes: int) -> int:
    """MiB of host memory for finished prompts in each process: together a quarter of the
    container's memory limit."""
    if memory_limit is None:
        return _CACHE_MIB
    return min(bytes_of(memory_limit) // MIB // 4 // processes, _LARGEST_CACHE_MIB)
