"""What `llmhost train` reports: a training's state, its losses, and the adapter."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SCHEMA = 1

State = Literal["none", "running", "paused", "done", "failed", "interrupted"]


@dataclass(frozen=True)
class Step:
    """A point of the loss curve; `seconds` since the training began."""

    step: int
    steps: int
    loss: float | None
    held_back_loss: float | None
    seconds: float


@dataclass(frozen=True)
class Adapter:
    """A finished adapter on the controller. `before` and `after` are losses on the examples that
    were held back, without and with it; `value` is their ratio."""

    directory: str
    gguf: str | None
    files: Mapping[str, str]
    before: float
    after: float
    value: float
    limit: float


@dataclass(frozen=True)
class TrainReport:
    """The output of `llmhost train --json`. `why` is a sentence, empty while it runs or if it is
    done."""

    schema: int
    host: str
    job: str
    state: State
    why: str
    steps: tuple[Step, ...] = ()
    adapter: Adapter | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
