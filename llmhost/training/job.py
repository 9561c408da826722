"""A training job on its host: the files in its directory there. Pure.

files/training/host.py runs on the host, files/images/training/train.py in the container.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmhost.gateway.tree import NginxPaths
from llmhost.history.run_record import LOCK
from llmhost.options.model_source import HubSource
from llmhost.options.training import TrainingJob
from llmhost.resources import FILES
from llmhost.settings import Settings
from llmhost.stack.training import training_image
from llmhost.system.files import File
from llmhost.training.data import Examples, lines_of

SCRIPT = FILES / "training/host.py"

DRAIN_SECONDS = 300
"""As in a roll, and in an update of a service."""


@dataclass(frozen=True)
class HostJob:
    """A job with its examples, for the host of these settings."""

    settings: Settings
    job: TrainingJob
    examples: Examples
    drain_seconds: int = DRAIN_SECONDS
    """How long open requests to the services that it stops may take."""

    @property
    def directory(self) -> str:
        """On the host."""
        return f"{self.settings.training.directory}/{self.job.name}"

    @property
    def image(self) -> str:
        """Reference of its image."""
        return training_image(self.settings, self.job).reference

    @property
    def files(self) -> dict[str, File]:
        """What the host gets, by path."""
        content = {
            "job/job.json": json.dumps(self.for_container, indent=2),
            "job/train.jsonl": lines_of(self.examples.train),
            "job/held_back.jsonl": lines_of(self.examples.held_back),
            "question.json": json.dumps(self.question, indent=2),
            "host.py": SCRIPT.read_text(encoding="utf-8"),
        }
        places = {f"{self.directory}/{path}": text for path, text in content.items()}
        return {place: File(place, text, "0600") for place, text in places.items()}

    @property
    def digest(self) -> str:
        """What a checkpoint belongs to: the data, the settings of the training, and the image,
        which has the base and the program."""
        parts = [self.examples.digest, self.for_container, self.image]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def for_container(self) -> dict[str, Any]:
        """`job.json`."""
        job = self.job
        return {
            "base": job.base_model.path,
            "base_name": base_name(job),
            "method": job.method,
            "rank": job.rank,
            "alpha": job.scale,
            "dropout": job.dropout,
            "target_modules": list(job.target_modules),
            "epochs": job.epochs,
            "learning_rate": job.learning_rate,
            "batch_size": job.batch_size,
            "context_tokens": job.context_tokens,
            "seed": job.seed,
            "checkpoint_steps": job.checkpoint_steps,
        }

    @property
    def question(self) -> dict[str, Any]:
        """`question.json`."""
        stack = self.settings.stack
        stopped = stopped_for(self.job, self.settings)
        return {
            "name": self.job.name,
            "image": self.image,
            "digest": self.digest,
            "gpus": [] if self.job.gpu is None else [str(self.job.gpu)],
            "services": stopped,
            "stopped": stack.stopped,
            "ports": {name: port for name in stopped if (port := _port(self.settings, name))},
            "gateway": f"{NginxPaths().configuration}/nginx.conf",
            "drain_seconds": self.drain_seconds,
            "compose": stack.compose_file,
            "start_seconds": stack.start_timeout_seconds,
            "hours": self.job.hours or "",
            "max_minutes": self.job.max_minutes,
            "lock": LOCK,
        }


def _port(settings: Settings, service: str) -> int | None:
    """The port at which the gateway asks a service; None if it does not."""
    asked = {each.name for each in settings.offered} | settings.uis.keys()
    return settings.options(service).port if service in asked else None


def base_name(job: TrainingJob) -> str:
    """The name of the base, as adapters state it."""
    origin = job.base_model.origin
    return origin.repository if isinstance(origin, HubSource) else str(origin).rstrip("/")


def stopped_for(job: TrainingJob, settings: Settings) -> list[str]:
    """Services that are stopped during a training, in their order: those that may be on its GPU,
    and those that it names. Numbers and UUIDs of GPUs cannot be compared here."""
    found = []
    for service in settings.services:
        request = settings.gpu_requests.get(service)
        shares = job.gpu is not None and request is not None and _may_be(str(job.gpu), request.gpus)
        if shares or service in job.stop_services:
            found.append(service)
    return found


def _may_be(gpu: str, others: int | tuple[str, ...]) -> bool:
    if isinstance(others, int):
        return True
    return any(gpu == each or gpu.isdecimal() != each.isdecimal() for each in others)


def host_command(directory: str, do: str) -> str:
    """Shell command for root that runs a function of the script on the host, if it is there."""
    script = f"{directory}/host.py"
    run = shlex.join(["python3", "-I", script, directory, do])
    return f"[ ! -e {shlex.quote(script)} ] || exec {run}"


def settings_of(job: TrainingJob) -> Mapping[str, Any]:
    """The settings of a training, for the card of its adapter."""
    chosen = (
        "method",
        "rank",
        "dropout",
        "target_modules",
        "epochs",
        "learning_rate",
        "batch_size",
    )
    more = ("context_tokens", "seed")
    return job.model_dump(mode="json", include={*chosen, *more}) | {"alpha": job.scale}
