"""Rules for the GPUs of services that can be checked without the host."""

from collections.abc import Iterator
from itertools import combinations

from llmhost.inventory.problem import Problem
from llmhost.settings import Settings


def gpu_problems(settings: Settings) -> Iterator[Problem]:
    """Services with contradictory options, and services that share a GPU without gpu_shared."""
    for service, options in settings.service_options.items():
        if options.gpu is not None and options.gpu_count is not None:
            what = f"and {service}_gpu_count are both set"
            yield Problem(f"{service}_gpu", what, "remove one of them")
        if isinstance(options.gpu, tuple) and len({*options.gpu}) < len(options.gpu):
            yield Problem(f"{service}_gpu", "lists a GPU twice", "keep one")
    for (one, first), (other, second) in combinations(settings.gpu_requests.items(), 2):
        if isinstance(first.gpus, int) or isinstance(second.gpus, int):
            continue
        if first.shared and second.shared:
            continue
        for gpu in sorted({*first.gpus} & {*second.gpus}):
            yield Problem(
                f"{other}_gpu",
                f"'{one}' and '{other}' both use GPU {gpu}",
                f"use different GPUs, or set {one}_gpu_shared and {other}_gpu_shared to True",
            )
