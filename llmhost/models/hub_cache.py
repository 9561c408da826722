"""Links from the places where Hugging Face's libraries look to the baked files of models. Pure.

Transformers.js reads `PUBLISHER/NAME` below its `cacheDir`, which applications set to CACHE or to
`$HF_HOME/transformers`. huggingface_hub reads `$HF_HOME/hub`, and transformers before version 5
reads the same layout in TRANSFORMERS_CACHE.
"""

import io
import posixpath
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from llmhost.options.model import Model
from llmhost.options.model_source import HubSource

CACHE = "/opt/hf-cache"


def repository(model: Model) -> str:
    """`PUBLISHER/NAME`, a model's name at the hub; for a directory, its last two parts. Empty if it
    has none."""
    if isinstance(model.origin, HubSource):
        return model.origin.repository
    parts = PurePosixPath(model.source).parts[-2:]
    named = isinstance(model.origin, str) and model.kind == "file" and bool(model.files)
    return "/".join(parts) if named and len(parts) == 2 and parts[0] != "/" else ""


def revision(model: Model) -> str:
    """Its commit; for a directory, a digest of its files that looks like one."""
    return model.revision or model.digest[:40]


def files_of(model: Model) -> Mapping[str, str]:
    """Path in the image of each file, by its path in the repository."""
    if model.files:
        return {file.path: f"{model.path}/{file.path}" for file in model.files}
    return {model.origin.file: model.path} if isinstance(model.origin, HubSource) else {}


def hub_folder(name: str) -> str:
    """Name of a repository's directory in the hub's cache (huggingface_hub, repo_folder_name)."""
    return f"models--{name.replace('/', '--')}"


def cache_archive(models: Sequence[Model]) -> bytes:
    """A tar archive of the links for these models."""
    links, texts = dict[str, str](), dict[str, str]()
    for model in models:
        if not (name := repository(model)):
            continue
        folder = f"{CACHE}/hub/{hub_folder(name)}"
        texts[f"{folder}/refs/main"] = revision(model)
        links[f"{CACHE}/{hub_folder(name)}"] = folder
        for path, target in files_of(model).items():
            for place in (name, f"transformers/{name}"):
                links[f"{CACHE}/{place}/{path}"] = target
            links[f"{folder}/snapshots/{revision(model)}/{path}"] = target
    return archive(CACHE, links, texts)


def archive(directory: str, links: Mapping[str, str], texts: Mapping[str, str]) -> bytes:
    """A tar archive of a directory, and of symbolic links and files, all by absolute path; equal
    input, equal bytes.

    The links are relative, so that they also hold below another root directory. The builder does
    not unpack an archive without entries."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry, data in _entries(directory, links, texts):
            tar.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def _entries(
    directory: str, links: Mapping[str, str], texts: Mapping[str, str]
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    home = tarfile.TarInfo(directory.lstrip("/"))
    home.type, home.mode = tarfile.DIRTYPE, 0o755
    yield home, b""
    for path in sorted(links):
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.type, entry.mode = tarfile.SYMTYPE, 0o777
        entry.linkname = posixpath.relpath(links[path], posixpath.dirname(path))
        yield entry, b""
    for path in sorted(texts):
        entry, data = tarfile.TarInfo(path.lstrip("/")), texts[path].encode()
        entry.size, entry.mode = len(data), 0o644
        yield entry, data
