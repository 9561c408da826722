"""Lets vLLM's build for CPUs run over several hosts, which upstream does on GPUs.

Three changes, all in code that only that build has: what Ray calls GPUs are its devices; processes
of different hosts share no memory; and a stage allocates the buffers of its input, as upstream
does in the warm-up, which that build skips with `--enforce-eager`.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def _platform(module: Any) -> None:
    module.CpuPlatform.ray_device_key = "GPU"


def _communicator(module: Any) -> None:
    module.CpuCommunicator._all_group_ranks_share_shm_group_name = lambda _: False


def _runner(module: Any) -> None:
    runner = module.CPUModelRunner
    load = runner.load_model

    def load_model(self: Any, *arguments: Any, **options: Any) -> None:
        load(self, *arguments, **options)
        if not module.get_pp_group().is_first_rank:
            self.intermediate_tensors = self.model.make_empty_intermediate_tensors(
                batch_size=self.max_num_tokens, dtype=self.model_config.dtype, device=self.device
            )

    module.get_pp_group = importlib.import_module("vllm.distributed").get_pp_group
    runner.load_model = load_model


_CHANGES: dict[str, Callable[[Any], None]] = {
    "vllm.platforms.cpu": _platform,
    "vllm.distributed.device_communicators.cpu_communicator": _communicator,
    "vllm.v1.worker.cpu_model_runner": _runner,
}


class _Loader(importlib.abc.Loader):
    def __init__(self, own: Any, change: Callable[[Any], None]) -> None:
        self._own = own
        self._change = change

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        self._own.exec_module(module)
        self._change(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        change = _CHANGES.pop(name, None)
        spec = importlib.util.find_spec(name) if change else None
        if spec and change:
            spec.loader = _Loader(spec.loader, change)
        return spec


sys.meta_path.insert(0, _Finder())
