"""Rules for the GPUs that services ask for, as far as they can be told without the host."""

from collections.abc import Iterator
from itertools import combinations

from llmhost.inventory.problem import Problem
from llmhost.settings import Settings


def gpu_problems(settings: Settings) -> Iterator[Problem]:
    """Services that ask twice, and services that would share a GPU without having agreed to."""
    for service, options in settings.service_options.items():
        if options.gpu is not None and options.gpu_count is not None:
            what = f"and {service}_gpu_count say two things"
            yield Problem(f"{service}_gpu", what, "name the GPUs or count them, and not both")
        if isinstance(options.gpu, tuple) and len({*options.gpu}) < len(options.gpu):
            yield Problem(f"{service}_gpu", "names a GPU twice", "name each once")
    for (one, first), (other, second) in combinations(settings.gpu_requests.items(), 2):
        if isinstance(first.gpus, int) or isinstance(second.gpus, int):
            continue
        if first.shared and second.shared:
            continue
        for gpu in sorted({*first.gpus} & {*second.gpus}):
            yield Problem(
                f"{other}_gpu",
                f"'{one}' and '{other}' both take GPU {gpu}",
                f"give them different ones, or set {one}_gpu_shared and {other}_gpu_shared to True",
            )
