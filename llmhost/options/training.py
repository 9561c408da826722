"""`training_*` and `training_jobs`: LoRA adapters that a host trains on data of its site."""

import re
from typing import Annotated, Literal

from pydantic import model_validator

from llmhost.options.adapter import Role
from llmhost.options.base import Section
from llmhost.options.gpus import OneGpu
from llmhost.options.kind import NUMERIC, Kind, Listed, Mistake
from llmhost.options.model import Model, ModelFile, Source
from llmhost.options.model_source import HubSource, parse_source
from llmhost.options.types import (
    Commit,
    HostPath,
    Image,
    IndexUrl,
    Items,
    Line,
    LocalName,
    OneOf,
    SecretReference,
    ServiceName,
    SomeItems,
    Tokens,
    number,
    text,
    whole,
)


def _hours(value: object) -> object:
    if not isinstance(value, str) or not (found := _HOURS.fullmatch(value)):
        raise ValueError
    if found[1] == found[2]:
        raise Mistake(f"is '{value}', which begins when it ends; remove it for any time of the day")
    return value


_TIME = r"((?:[01]\d|2[0-3]):[0-5]\d)"
_HOURS = re.compile(f"{_TIME}-{_TIME}", re.ASCII)

Hours = Annotated[
    str, Kind(_hours, "the first and the last minute of a day", "22:00-06:00", NUMERIC)
]
"""In the time zone of the host; a window may go past midnight."""

_LOCK = "run: llmhost model lock INVENTORY"


class Training(Section):
    """Images and directories of trainings. An adapter is trained by `llmhost train`."""

    image: Image = (
        "vllm/vllm-openai:v0.31.0"
        "@sha256:c1c9f6fd5c109ba7f0546a59f5b2f15fb87f64c77782e90a27b648b42a8e67c3"
    )
    """Image to train in, pinned by digest. It must contain Python with PyTorch and Transformers, as
    that of vLLM does; PEFT and TRL are added."""

    package_index: IndexUrl | None = None
    """Package index from which the image build gets PEFT and TRL, as pip's `index-url`; none: PyPI.
    pip installs only files with the locked hashes."""

    directory: HostPath = "/var/lib/llmhost/training"
    """Directory on the host with data, checkpoints and adapters of the jobs, for root and the
    container only."""


class TrainingEvaluation(Section):
    """What an adapter must reach on the examples that are held back; otherwise it is discarded."""

    held_back: Annotated[float, number(0.01, 0.5, example=0.1)] = 0.1
    """Fraction of the examples that are not trained on."""

    file: LocalName | None = None
    """Instead of a fraction: JSON Lines with the examples, in the same form as those of `data`."""

    at_most: Annotated[float, number(0, 1, example=0.9, above=True)]
    """Limit of the loss on them with the adapter, divided by that without."""


class TrainingJob(Section):
    """An adapter to train: for which model, on which data, how, and when."""

    name: Role
    """Name of the job, and of its adapter."""

    model: Role
    """Role of the model that the adapter is for."""

    base: Source | None = None
    """Repository with the model's safetensors, `hf:PUBLISHER/REPOSITORY` or a directory on the
    controller; none: the source of the model. A GGUF file cannot be trained: name the repository
    that it was made from."""

    revision: Commit | None = None
    """Commit of the repository; the lock file has it."""

    files: Annotated[tuple[ModelFile, ...], Listed()] = ()
    """Files of the repository with their digests; the lock file has them."""

    token: SecretReference | None = None
    """Where the controller finds the token for a gated repository: `env:NAME` or `file:PATH`."""

    licence: Line | None = None
    """License of the repository, as on its model card."""

    base_models: Items[Line] = ()
    """Models that the base was derived from, as `PUBLISHER/NAME`; policies judge them too."""

    data: SomeItems[LocalName]
    """Files and directories on the controller: Markdown, Python, JavaScript and text files, and
    JSON Lines (`.jsonl`) with questions and answers."""

    evaluate: TrainingEvaluation
    """How the adapter is judged."""

    method: OneOf[Literal["lora", "qlora"]] = "lora"
    """`qlora` trains on a base that is quantized to 4 bits in memory. It needs an NVIDIA GPU."""

    rank: Annotated[int, whole(1, 512, "dimensions", 16)] = 16
    """Rank of the adapter."""

    alpha: Annotated[int, whole(1, 1024, "", 32)] | None = None
    """Scale of the adapter; none: twice the rank."""

    dropout: Annotated[float, number(0, 0.9, example=0.05)] = 0.05
    """Fraction of the adapter's inputs that is dropped at each step."""

    target_modules: Items[
        Annotated[str, text(r"[\w.]{1,64}", "the name of a module of the model", "q_proj")]
    ] = ()
    """Layers that get an adapter, such as `q_proj`; none: all linear layers except the head."""

    epochs: Annotated[int, whole(1, 100, "epochs", 3)] = 3
    """How often each example is seen."""

    learning_rate: Annotated[float, number(0, 1, example=0.0002, above=True)] = 0.0002
    """Learning rate at the beginning."""

    batch_size: Annotated[int, whole(1, 1024, "examples", 4)] = 4
    """Examples in a step."""

    context_tokens: Tokens = 1024
    """Longest example. Longer texts are divided; questions that are longer with their answer are
    left out, and `llmhost train` says how many."""

    seed: Annotated[int, whole(0, 2**31 - 1, "", 1)] = 1
    """Seed of the order of examples, of what is held back, and of the first weights."""

    checkpoint_steps: Annotated[int, whole(1, 1_000_000, "steps", 50)] = 50
    """Steps between two checkpoints, from which an interrupted training continues."""

    hours: Hours | None = None
    """When it may run, in the time zone of the host, such as `22:00-06:00`. At the end it keeps a
    checkpoint and gives the GPU back. None: at any time."""

    max_minutes: Annotated[int, whole(1, 100_000, "minutes", 480)] = 480
    """Longest time of one run; then the same happens."""

    gpu: OneGpu | None = None
    """GPU to train on, a number from `nvidia-smi` or a UUID; none: the CPU. Services on the same
    GPU are stopped meanwhile."""

    stop_services: Items[ServiceName] = ()
    """Further services to stop meanwhile, such as those that need the same memory."""

    @model_validator(mode="after")
    def _has_a_base(self) -> "TrainingJob":
        if self.base is None:
            return self  # the model is not declared, or its source is no repository: the rules say
        if not isinstance(parse_source(self.base), HubSource | str):
            raise Mistake("is from Ollama's library, which has no safetensors", "base")
        if not any(each.path.endswith(".safetensors") for each in self.files):
            if self.files:
                raise Mistake("has a base without safetensors; write a repository that has them")
            raise Mistake(f"has a base that is not pinned; {_LOCK}")
        return self

    @model_validator(mode="after")
    def _fits_its_method(self) -> "TrainingJob":
        if self.method == "qlora" and self.gpu is None:
            raise Mistake(
                "is 'qlora', which needs an NVIDIA GPU; add gpu, or write 'lora'", "method"
            )
        return self

    @property
    def base_model(self) -> Model:
        """The base as a model of vLLM, whose files it can share."""
        assert self.base is not None
        return Model(
            name=self.model,
            service="vllm",
            source=self.base,
            revision=self.revision,
            files=self.files,
            token=self.token,
            licence=self.licence,
            base_models=self.base_models,
        )

    @property
    def scale(self) -> int:
        """The adapter's alpha."""
        return self.alpha or 2 * self.rank

    @property
    def service(self) -> str:
        """Name of its image, beside those of services."""
        return f"training-{self.name}"
