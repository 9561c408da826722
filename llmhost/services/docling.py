"""docling-serve: converts documents (PDF, Office, pictures) to structured text."""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from llmhost.models.hub_cache import archive, files_of, hub_folder, repository, revision
from llmhost.options.model import Model
from llmhost.options.types import Image, LoadSeconds, LocalPort, MemorySize, Seconds, Threads, whole
from llmhost.services.abilities import Abilities
from llmhost.services.base import Request, Route, Service, ServiceOptions
from llmhost.services.documents import SENTENCE, sample_pdf
from llmhost.system.files import File


class DoclingOptions(ServiceOptions):
    """`docling_*`."""

    image: Image = (
        "quay.io/docling-project/docling-serve-cpu:v1.36.0"
        "@sha256:225c8586e20d5d0fc6811a9e0e044fa602bcc4393f00389009bad42d6787b58f"
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
    """Maximum time of a conversion that a client waits for; there is no limit for asynchronous
    ones."""

    load_timeout_seconds: LoadSeconds = 600
    """Maximum time to load the models; after that the container is unhealthy."""


_ARTIFACTS = "/opt/app-root/src/.cache/docling/models"
_HUB = "/opt/huggingface/hub"

FORMULAS = "docling-project/CodeFormulaV2"
"""Reads formulas and code."""

PICTURES = "HuggingFaceTB/SmolVLM-256M-Instruct"
"""Describes pictures."""

TOKENIZER = "sentence-transformers/all-MiniLM-L6-v2"
"""Measures the chunks of `/v1/chunk/hybrid`."""


# docling-core reads max_seq_length from it (transforms/chunker/tokenizer/huggingface.py).
_CHUNK_LENGTH = "sentence_bert_config.json"


class Docling(Service[DoclingOptions]):
    """docling-serve with more models than those of its image."""

    def check_models(self, models: Sequence[Model]) -> Iterator[str]:
        """The path of a directory must end with the model's name at the hub, and the tokenizer
        needs the file that says how long a chunk may be."""
        for model in models:
            if not (model.directory or repository(model)):
                yield (
                    f"needs the name of '{model.name}' at the hub: "
                    "end the path of its source in PUBLISHER/NAME"
                )
            paths = [file.path for file in model.files]
            if repository(model) == TOKENIZER and paths and _CHUNK_LENGTH not in paths:
                yield (
                    f"finds no chunks without the file {_CHUNK_LENGTH} of '{model.name}';"
                    " add it to its files or to its include"
                )

    def context(self, _options: DoclingOptions, models: Sequence[Model]) -> Iterator[File]:
        """Links to each model, where docling's own code looks and where its libraries look."""
        links, texts = dict[str, str](), dict[str, str]()
        for model in models:
            folder = hub_folder(repository(model))
            if model.directory:
                place = f"{_ARTIFACTS}/{model.directory}"
                links |= {f"{place}/{path}": at for path, at in files_of(model).items()}
                continue
            links[f"{_ARTIFACTS}/{folder.removeprefix('models--')}"] = model.path
            links[f"{_HUB}/{folder}/snapshots/{revision(model)}"] = model.path
            texts[f"{_HUB}/{folder}/refs/main"] = revision(model)
        yield File("links.tar", archive(_HUB, links, texts))

    def variables(self, models: Sequence[Model]) -> Mapping[str, str]:
        """Environment that depends on its models.

        docling-jobkit 3.7 and newer read formulas with Granite Docling unless this is set
        (convert/manager.py, _parse_code_formula_options)."""
        if FORMULAS in map(repository, models):
            return {"DOCLING_SERVE_DEFAULT_CODE_FORMULA_PRESET": "codeformulav2"}
        return {}

    def request(self, _models: Sequence[Model]) -> Request:
        """A conversion by the models of the default pipeline."""
        return Request("/v1/convert/source", {"sources": [_SAMPLE]}, expects=SENTENCE)

    def requests(self, models: Sequence[Model]) -> Sequence[Request]:
        """A conversion by all models, and chunks. `/health` does not depend on any model; without
        its tokenizer, `/v1/chunk/hybrid` answers with no chunks."""
        options = enrichments(models)
        body = {"sources": [_SAMPLE], **({"options": options} if options else {})}
        chunker = "hybrid" if TOKENIZER in map(repository, models) else "hierarchical"
        return (
            Request("/v1/convert/source", body, expects=SENTENCE),
            Request(f"/v1/chunk/{chunker}/source", {"sources": [_SAMPLE]}, expects=SENTENCE),
        )


def enrichments(models: Sequence[Model]) -> dict[str, bool]:
    """Options of a conversion that use the declared models: docling loads them for it, and fails
    if one is missing."""
    wanted = {"do_formula_enrichment": FORMULAS, "do_picture_description": PICTURES}
    known = {*map(repository, models)}
    return {option: True for option, model in wanted.items() if model in known}


_SAMPLE = {
    "kind": "file",
    "filename": "check.pdf",
    "base64_string": b64encode(sample_pdf()).decode(),
}


def _routes() -> Iterator[Route]:
    """Each conversion and each chunker, from files and from sources, synchronous or not.

    `source` is only for trusted clients: it fetches URLs from inside the host's network, and sends
    results and notifications to URLs in the request."""
    for task in ("convert", "chunk/hybrid", "chunk/hierarchical"):
        for wait in ("", "/async"):
            yield Route(f"/v1/{task}/file{wait}", ("POST",))
            yield Route(f"/v1/{task}/source{wait}", ("POST",), "admin")
    # A task's id is a random UUID, known only to the client that started it.
    yield Route("/v1/status/poll/{task_id}", ("GET",))
    yield Route("/v1/result/{task_id}", ("GET",))
    for path in ("/health", "/ready", "/version"):
        yield Route(path, ("GET",))


# Several public projects pin the digest of the default image for its tag.
SERVICE = Docling(
    name="docling",
    options=DoclingOptions,
    container_port=5001,
    runs=Abilities(tasks=("generate", "embed"), sources=("files",), directory=True),
    routes=tuple(_routes()),
)
