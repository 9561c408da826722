"""Metrics for Prometheus. With PROMETHEUS_MULTIPROC_DIR, those of several processes together."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pynvml
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

_SHARED = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
if _SHARED:
    Path(_SHARED).mkdir(exist_ok=True)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10)

SEARCH_REQUESTS = Counter("search_requests_total", "Searches, by outcome", ["outcome", "cache"])
SEARCH_SECONDS = Histogram(
    "search_request_duration_seconds",
    "Time from the arrival of a search to its answer",
    buckets=_SECONDS,
)
STAGE_SECONDS = Histogram(
    "search_stage_duration_seconds",
    "Time of one stage of a search: cache, embed, expand, store, rerank",
    ["stage"],
    buckets=_SECONDS,
)
MODEL_LOAD_SECONDS = Gauge(
    "model_load_duration_seconds",
    "Time until the embedding model first answered",
    ["model"],
    multiprocess_mode="max",
)
DOCUMENTS_STORED = Counter("search_documents_stored_total", "Documents added or replaced")


@contextmanager
def stage(name: Literal["cache", "embed", "expand", "store", "rerank"]) -> Iterator[None]:
    """Measure a stage of a search."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        STAGE_SECONDS.labels(name).observe(time.perf_counter() - begun)


class GpuMemory(Collector):
    """Used memory of each GPU that the container sees; none where it sees none."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One sample a GPU."""
        family = GaugeMetricFamily(
            "gpu_memory_usage_bytes", "Memory of the GPU in use", labels=["gpu"]
        )
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            yield family
            return
        try:
            for number in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(number)
                family.add_metric([str(number)], pynvml.nvmlDeviceGetMemoryInfo(handle).used)
        finally:
            pynvml.nvmlShutdown()
        yield family


REGISTRY.register(GpuMemory())


def exposition() -> bytes:
    """All metrics in Prometheus's format."""
    if not _SHARED:
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    registry.register(GpuMemory())
    return generate_latest(registry)
