"""Resolve model sources to pins, with the APIs of Hugging Face and Ollama's library.

The inventory's `stack_huggingface_url` and `stack_ollama_library_url` name a mirror, also for the
servers' downloads. Without them, HF_ENDPOINT (as for Hugging Face's own tools) and
LLMHOST_OLLAMA_LIBRARY do, for locking only. The token for gated models comes from HF_TOKEN and is
sent to Hugging Face or its mirror only.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import httpx

from llmhost.models.lineage import LICENCES, bases_in, licences_in
from llmhost.options.gguf_parts import all_parts, part_of
from llmhost.options.model import can_be_a_file
from llmhost.options.model_source import HUB, MANIFEST, OLLAMA_LIBRARY, HubSource, OllamaSource
from llmhost.secret import read_token
from llmhost.units import reason

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"

_STRANGE = (
    "cannot be looked up: the answer is not that of a model hub; check the address of the mirror"
)

# What vLLM and Transformers read from a repository with several formats: safetensors and text.
_READ = re.compile(r"(\.safetensors|\.json|\.txt|\.model|\.jinja)$")
_LEFT_OUT = re.compile(r"(^|/)(\.|original/|onnx/|openvino/|metal/)")
# The hub knows the SHA-256 of large files (LFS); files that git stores itself are hashed here.
_LARGEST_TEXT = 64 * 1024 * 1024

ADDRESSES = {
    "stack_huggingface_url": ("HF_ENDPOINT", HUB),
    "stack_ollama_library_url": ("LLMHOST_OLLAMA_LIBRARY", OLLAMA_LIBRARY),
}
"""By option of the inventory: the environment variable for locking alone, and the default."""


class HubError(Exception):
    """Why a source cannot be locked; the text continues a sentence that begins with its name."""


class Hubs:
    """Connections to both hubs, as a context manager. `seconds` is the timeout of a request,
    `addresses` are the inventory's `stack_*_url` options."""

    def __init__(self, seconds: float = 60, addresses: Mapping[str, str] | None = None) -> None:
        given = addresses or {}
        found = {
            option: given.get(option) or os.environ.get(variable) or default
            for option, (variable, default) in ADDRESSES.items()
        }
        self._hub = found["stack_huggingface_url"].rstrip("/")
        self._library = found["stack_ollama_library_url"].rstrip("/")
        self._token_mistake = ""
        try:
            token = read_token("env:HF_TOKEN") if os.environ.get("HF_TOKEN") else ""
        except ValueError as error:
            token, self._token_mistake = "", f"the token {error}"
        self._token = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(timeout=seconds, follow_redirects=True)

    def __enter__(self) -> "Hubs":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def pins(
        self,
        source: HubSource | OllamaSource,
        revision: str | None,
        include: Sequence[str] = (),
    ) -> dict[str, Any]:
        """An entry of the lock file; `include` are patterns of files. Raises HubError."""
        if isinstance(source, OllamaSource):
            return self._library_pins(source)
        return self._hub_pins(source, revision or "main", include)

    def _hub_pins(self, source: HubSource, revision: str, include: Sequence[str]) -> dict[str, Any]:
        if self._token_mistake:
            raise HubError(f"cannot be looked up: {self._token_mistake}")
        # https://huggingface.co/docs/hub/api: blobs=true adds size and LFS hash of each file.
        address = f"{self._hub}/api/models/{source.repository}/revision/{revision}"
        answer = _json(self._get(address, self._token, params={"blobs": "true"}))
        commit = str(answer.get("sha", ""))
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise HubError("has no commit in the hub's answer")
        named = (each for each in _records(answer, "siblings") if "rfilename" in each)
        siblings = {str(each["rfilename"]): each for each in named}
        pins: dict[str, Any] = {"revision": commit, **_card(answer)}
        if source.file:
            for name in all_parts(source.file):
                if name not in siblings:
                    which = "this file" if name == source.file else name
                    raise HubError(f"does not contain {which}; it contains {_some(siblings)}")
            if part_of(source.file):
                return {**pins, **self._file_pins(source, commit, siblings, all_parts(source.file))}
            sha256 = self._sha256(source, commit, siblings[source.file])
            return {**pins, "sha256": sha256, "bytes": _size(siblings[source.file])}
        names = _selected(siblings, include) if include else _readable(siblings)
        return {**pins, **self._file_pins(source, commit, siblings, sorted(names))}

    def _file_pins(
        self,
        source: HubSource,
        commit: str,
        siblings: Mapping[str, Mapping[str, Any]],
        names: Sequence[str],
    ) -> dict[str, Any]:
        files = [
            {"path": name, "sha256": self._sha256(source, commit, siblings[name])} for name in names
        ]
        return {"files": files, "bytes": sum(_size(siblings[name]) for name in names)}

    def _sha256(self, source: HubSource, commit: str, sibling: Mapping[str, Any]) -> str:
        lfs = sibling.get("lfs")
        sha256 = str(lfs.get("sha256")) if isinstance(lfs, dict) else ""
        if re.fullmatch(r"[0-9a-f]{64}", sha256):
            return sha256
        if lfs or _size(sibling) > _LARGEST_TEXT:
            raise HubError(f"has no hash for {sibling['rfilename']} in the hub's answer")
        path = source.url(commit, sibling["rfilename"]).removeprefix(HUB)
        return hashlib.sha256(self._get(self._hub + path, self._token).content).hexdigest()

    def _library_pins(self, source: OllamaSource) -> dict[str, Any]:
        address = source.url(MANIFEST).replace(OLLAMA_LIBRARY, self._library, 1)
        answer = self._get(address, {"Accept": MANIFEST_TYPE})
        manifest = _json(answer)
        config = manifest.get("config")
        blobs = [config if isinstance(config, dict) else {}, *_records(manifest, "layers")]
        digests = [*dict.fromkeys(str(blob.get("digest", "")) for blob in blobs)]
        if not all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests):
            raise HubError("has a manifest without digests")
        files = [{"path": MANIFEST, "sha256": hashlib.sha256(answer.content).hexdigest()}]
        files += [
            {"path": digest.replace(":", "-"), "sha256": digest.removeprefix("sha256:")}
            for digest in digests
        ]
        return {"files": files, "bytes": sum(map(_size, blobs))}

    def _get(
        self, address: str, headers: Mapping[str, str], params: Mapping[str, str] | None = None
    ) -> httpx.Response:
        try:
            answer = self._http.get(address, headers=dict(headers), params=params)
        except httpx.HTTPError as error:
            where = urlsplit(address).hostname
            why = f"no connection to {where} ({reason(error)})"
            raise HubError(f"cannot be looked up: {why}") from None
        if answer.status_code in (401, 403):
            raise HubError(
                "is gated or private: accept its terms at the hub, and set HF_TOKEN to a token"
            )
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise HubError("or its revision does not exist: correct the source")
        if answer.is_error:
            raise HubError(f"cannot be looked up: the hub answered {answer.status_code}")
        return answer


def _readable(siblings: Mapping[str, Any]) -> list[str]:
    """Files that vLLM and Transformers read. They look for no texts with spaces or brackets in
    their names, such as licenses, and a model can have none. Raises HubError."""
    names = [name for name in siblings if _READ.search(name) and not _LEFT_OUT.search(name)]
    weights = [name for name in names if name.endswith(".safetensors")]
    if weights:
        _check_paths(weights)
        return [*filter(can_be_a_file, names)]
    onnx = [name for name in siblings if name.endswith(".onnx")]
    if onnx:
        raise HubError(
            "contains no safetensors files, only ONNX files: select files with include, such as"
            f" ['*.json', {onnx[0]!r}]; it contains {_some(siblings)}"
        )
    raise HubError(f"contains no safetensors files; it contains {_some(siblings)}")


def _selected(siblings: Mapping[str, Any], include: Sequence[str]) -> list[str]:
    """Files that match one of the patterns, as in huggingface_hub's `allow_patterns`. Raises
    HubError if a pattern matches nothing, or if a selected file keeps its weights in another."""
    found = {pattern: [n for n in siblings if fnmatchcase(n, pattern)] for pattern in include}
    for pattern, names in found.items():
        if not names:
            raise HubError(f"contains no file {pattern}; it contains {_some(siblings)}")
    chosen = sorted({name for names in found.values() for name in names})
    _check_paths(chosen)
    for name in siblings:
        # onnx/model.onnx_data, and with several files onnx/model.onnx_data_1
        of = name.partition(".onnx_data")[0] + ".onnx"
        if of in chosen and name not in chosen and ".onnx_data" in name:
            raise HubError(f"keeps weights of {of} in {name}: add this file to include")
    return chosen


def _check_paths(names: Iterable[str]) -> None:
    for name in names:
        if not can_be_a_file(name):
            raise HubError(
                f"has a file {name!r}, and names of a model's files have letters, digits and ._-"
                " only; select files with include"
            )


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        data = answer.json()
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise HubError(_STRANGE)
    return data


def _records(answer: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of records in an answer. Raises HubError."""
    found = answer.get(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise HubError(_STRANGE)
    return found


def _size(record: Mapping[str, Any]) -> int:
    """Bytes of a file; 0 if the hub does not know."""
    size = record.get("size")
    return size if isinstance(size, int) else 0


def _card(answer: Mapping[str, Any]) -> dict[str, Any]:
    """License and base models, from the model card's front matter."""
    card = answer.get("cardData")
    stated = card if isinstance(card, dict) else {}
    licences, bases = licences_in(stated), bases_in(stated)
    found = {"licence": LICENCES.join(licences)} if licences else {}
    return {**found, **({"base_models": bases} if bases else {})}


def _some(names: Mapping[str, Any]) -> str:
    def shown() -> Iterator[str]:
        files = [name for name in names if not name.startswith(".")]
        yield from files[:8]
        if len(files) > 8:
            yield f"{len(files) - 8} more"

    return ", ".join(shown()) or "no files"
