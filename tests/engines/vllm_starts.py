"""Starts of the real vLLM that compile, with the rendered command, environment and cache."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from testbed.real_vllm import real_vllm, tiny_model
from tests.integration.local_gateway import free_ports
from tests.unit.vllm_site import NAME, hub_directory, site_of, started_as

# A cache that does not take most of the memory.
_SMALL = ["--kv-cache-memory-bytes", "268435456"]


@dataclass(frozen=True)
class Start:
    """Seconds until it is healthy, what it then says, and the files in its cache afterwards, with
    the time of their last change."""

    seconds: float
    text: str
    files: dict[str, int]


def starts(directory: Path, *arguments: str) -> Iterator[Start]:
    """Starts, one after the other; the cache of the first one is empty. `arguments` are more of
    the engine's."""
    model = hub_directory(tiny_model(directory / "qwen3"))
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    site = site_of(model, extra_arguments=[*_SMALL, *arguments])
    while True:
        command, environment = started_as(site, directory, port)
        begun = time.monotonic()
        with real_vllm(command, environment, url, directory / "log"):
            seconds = time.monotonic() - begun
            text = _said(url)
        cache = directory / "cache"
        files = {
            str(path.relative_to(cache)): path.stat().st_mtime_ns
            for path in cache.rglob("*")
            if path.is_file()
        }
        yield Start(seconds, text, files)


def _said(url: str) -> str:
    body = {"model": NAME, "prompt": "One, two,", "max_tokens": 8, "temperature": 0}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=300).raise_for_status()
    text: str = answer.json()["choices"][0]["text"]
    return text
