"""docling-serve: documents (PDF, Office, pictures) become text with their structure."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Annotated

from llmhost.options.model import Model
from llmhost.options.model_source import HubSource
from llmhost.options.types import Image, LoadSeconds, LocalPort, MemorySize, Seconds, Threads, whole
from llmhost.services.abilities import Abilities
from llmhost.services.base import Route, Service, ServiceOptions
from llmhost.system.files import File


class DoclingOptions(ServiceOptions):
    """`docling_*`."""

    image: Image = (
        "quay.io/docling-project/docling-serve-cpu:v1.28.0"
        "@sha256:cc207e1eb768878456ed98042c5d84fae56af3729a9c03d3e5c8fef393902956"
    )
    """Image of docling-serve with its models, pinned by digest: `registry/name:tag@sha256:…`. The
    default is upstream's build for CPUs with the models of its default pipeline; models that read
    formulas or describe pictures are declared in `models`. Its digest is the one that several
    public projects pin for this tag. With a GPU, use a CUDA build: it needs more than 8 GiB of GPU
    memory."""

    port: LocalPort = 5001
    """Port on 127.0.0.1 of the host."""

    memory_limit: MemorySize | None = "8g"
    """Most memory that the container may use, such as `16g`; none: no limit."""

    threads: Threads = 4
    """CPU threads for each model."""

    workers: Annotated[int, whole(1, 16, "workers", 1)] = 1
    """Documents converted at the same time; each worker loads the models."""

    wait_seconds: Seconds = 120
    """Longest time that a client waits for its document."""

    load_timeout_seconds: LoadSeconds = 600
    """Longest time that the models may take to load before the container counts as unhealthy."""


def repository(model: Model) -> str:
    """`PUBLISHER/NAME`, by which docling knows a model; of a directory, its last two parts."""
    if isinstance(model.origin, HubSource):
        return model.origin.repository
    return "/".join(PurePosixPath(model.source).parts[-2:])


class Docling(Service[DoclingOptions]):
    """docling-serve with further models beside those of its image."""

    def check_models(self, models: Sequence[Model]) -> Iterator[str]:
        """A directory has to tell what the model is called at the hub."""
        for model in models:
            path = PurePosixPath(repository(model))
            if len(path.parts) != 2 or path.is_absolute():
                yield (
                    f"can not tell what '{model.name}' is called at the hub: "
                    "let its source end in PUBLISHER/NAME"
                )

    def context(self, _options: DoclingOptions, models: Sequence[Model]) -> Iterator[File]:
        """Where each further model is, what docling calls it, and of which revision it is."""
        lines = [
            f"{each.path} {repository(each)} {each.revision or each.digest[:40]}\n"
            for each in models
        ]
        yield File("models", "".join(lines))


# `source` fetches addresses from inside the host's network: for clients that are trusted with it.
SERVICE = Docling(
    name="docling",
    options=DoclingOptions,
    container_port=5001,
    runs=Abilities(tasks=("generate", "embed"), sources=("files",)),
    routes=(
        Route("/v1/convert/file", ("POST",)),
        Route("/v1/convert/source", ("POST",), "admin"),
        Route("/health", ("GET",)),
    ),
)
