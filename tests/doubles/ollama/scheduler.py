"""Which models are loaded, with which options, and until when (server/sched.go)."""

import os
import re
import sys
import time
from pathlib import Path
from threading import Condition

from tests.doubles.ollama.refusal import Json, Refused
from tests.doubles.ollama.runner import start
from tests.doubles.ollama.store import Model, stamp

FOREVER = 2**63 / 1e9
RUNNER_OPTIONS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread")
INTEGERS = ("num_keep", "seed", "num_predict", "top_k", "repeat_last_n", *RUNNER_OPTIONS[:3])
FLOATS = ("top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty")


class Runner:
    """One llama-server: weights with the options and adapters that it was started with."""

    def __init__(self, model: Model, options: Json, duration: float) -> None:
        self.model, self.options, self.duration = model, options, duration
        self.expires = time.time() + duration
        self.busy = 0
        self.process = start(model.weights, model.adapters)

    def close(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait()


class Scheduler:
    """Runners by path of their weights; when all are taken, the idle one with the shortest stay
    goes first."""

    def __init__(self) -> None:
        self.runners: dict[Path, Runner] = {}
        self.lock = Condition()
        self.most = int(os.environ.get("OLLAMA_MAX_LOADED_MODELS", "0")) or 3
        self.default = seconds(os.environ.get("OLLAMA_KEEP_ALIVE", "5m"))

    def use(self, model: Model, options: Json, keep_alive: object, *, hold: bool = False) -> Runner:
        """The runner for a request. One that is held stays busy until it is released."""
        given = None if keep_alive is None else seconds(keep_alive)
        wanted = {name: options[name] for name in RUNNER_OPTIONS if name in options}
        wanted["num_ctx"] = min(int(wanted.get("num_ctx", 4096)), model.trained_context)
        with self.lock:
            self._expire()
            runner = self.runners.get(model.weights)
            if runner and (runner.options, runner.model.adapters) != (wanted, model.adapters):
                while runner.busy:
                    self.lock.wait(60)
                self._drop(model.weights)
                runner = None
            if runner is None:
                runner = self._start(model, wanted, self.default if given is None else given)
            if given is not None:
                runner.duration = given
            runner.busy += 1
        if not hold:
            self.release(runner)
        return runner

    def release(self, runner: Runner) -> None:
        with self.lock:
            runner.busy -= 1
            runner.expires = time.time() + runner.duration
            if runner.duration <= 0 and not runner.busy:
                self._drop(runner.model.weights)
            self.lock.notify_all()

    def _start(self, model: Model, options: Json, duration: float) -> Runner:
        while len(self.runners) >= self.most:
            idle = [path for path, each in self.runners.items() if not each.busy]
            if idle:
                self._drop(min(idle, key=lambda p: (self.runners[p].duration, str(p))))
            else:
                self.lock.wait(60)
        self.runners[model.weights] = runner = Runner(model, options, duration)
        sys.stderr.write(f'msg="loaded runners" count={len(self.runners)} model={model.weights}\n')
        return runner

    def unload(self, model: Model) -> None:
        with self.lock:
            self._drop(model.weights)

    def _expire(self) -> None:
        for path in [path for path, each in self.runners.items() if each.expires < time.time()]:
            self._drop(path)

    def _drop(self, weights: Path) -> None:
        if runner := self.runners.pop(weights, None):
            runner.close()

    def running(self) -> list[Json]:
        with self.lock:
            self._expire()
            found = sorted(self.runners.values(), key=lambda runner: -runner.expires)
        return [
            {
                "name": runner.model.short,
                "model": runner.model.short,
                "size": runner.model.size,
                "digest": runner.model.digest,
                "details": runner.model.details,
                "expires_at": stamp(runner.expires),
                "size_vram": 0,
                "context_length": runner.options["num_ctx"],
            }
            for runner in found
        ]


def seconds(duration: object) -> float:
    """Of a number, or of a text such as `5m`; negative: for ever."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([smh]?)", str(duration))
    if not match or isinstance(duration, bool):
        raise Refused(400, f'time: invalid duration "{duration}"')
    number = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
    return FOREVER if number < 0 else number


scheduler = Scheduler()


def checked_options(body: Json) -> Json:
    given = body.get("options") or {}
    for name, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        kind = "integer" if name in INTEGERS else "float32" if name in FLOATS else ""
        if kind and value is not None and not number:
            raise Refused(500, f'option "{name}" must be of type {kind}')
    return {name: value for name, value in given.items() if value is not None}
