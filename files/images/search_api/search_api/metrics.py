"""What Prometheus is told."""

from collections.abc import Iterator

import pynvml
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SEARCH_REQUESTS = Counter(
    "search_requests_total", "Searches, by what came of them", ["outcome", "cache"]
)
SEARCH_SECONDS = Histogram(
    "search_request_duration_seconds",
    "Time from a search's arrival to its answer",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10),
)
MODEL_LOAD_SECONDS = Gauge(
    "model_load_duration_seconds", "Time until the embedding model first answered", ["model"]
)


class GpuMemory(Collector):
    """Used memory of each GPU that the container sees; none where it sees none."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
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
