"""docling-serve: converts documents (PDF, Office, pictures) to structured text."""

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
    """Image of docling-serve with its models, pinned by digest. The default is the CPU build with
    the models of the default pipeline; declare others, which read formulas or describe pictures, in
    `models`. A CUDA build needs more than 8 GiB of GPU memory."""

    port: LocalPort = 5001
    """Port on 127.0.0.1 of the host."""

    memory_limit: MemorySize | None = "8g"
    """Memory limit of the container, such as `16g`; none: no limit."""

    threads: Threads = 4
    """CPU threads for each model."""

    workers: Annotated[int, whole(1, 16, "workers", 1)] = 1
    """Concurrent conversions; each worker loads the models."""

    wait_seconds: Seconds = 120
    """Maximum time of one conversion."""

    load_timeout_seconds: LoadSeconds = 600
    """Maximum time to load the models; after that the container is unhealthy."""


def repository(model: Model) -> str:
    """`PUBLISHER/NAME`, a model's name in docling; for a directory, its last two parts."""
    if isinstance(model.origin, HubSource):
        return model.origin.repository
    return "/".join(PurePosixPath(model.source).parts[-2:])


class Docling(Service[DoclingOptions]):
    """docling-serve with more models than those of its image."""

    def check_models(self, models: Sequence[Model]) -> Iterator[str]:
        """The path of a directory must end with the model's name at the hub."""
        for model in models:
            path = PurePosixPath(repository(model))
            if len(path.parts) != 2 or path.is_absolute():
                yield (
                    f"needs the name of '{model.name}' at the hub: "
                    "end the path of its source in PUBLISHER/NAME"
                )

    def context(self, _options: DoclingOptions, models: Sequence[Model]) -> Iterator[File]:
        """Path, name in docling and revision of each model."""
        lines = [
            f"{each.path} {repository(each)} {each.revision or each.digest[:40]}\n"
            for each in models
        ]
        yield File("models", "".join(lines))


# `source` fetches URLs from inside the host's network: only for trusted clients. Several public
# projects pin the digest of the default image for its tag.
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
