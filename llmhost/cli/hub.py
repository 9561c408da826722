"""What a model's source stands for now, asked of Hugging Face and of Ollama's library.

The addresses are theirs; HF_ENDPOINT (as for Hugging Face's own tools) and LLMHOST_OLLAMA_LIBRARY
name a mirror. A token for gated models is read from HF_TOKEN and sent to the hub only.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from llmhost.options.model_source import HUB, MANIFEST, OLLAMA_LIBRARY, HubSource, OllamaSource

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"

# Of a repository in several formats, what vLLM and Transformers read: safetensors, and texts.
_READ = re.compile(r"(\.safetensors|\.json|\.txt|\.model|\.jinja)$")
_LEFT_OUT = re.compile(r"(^|/)(\.|original/|onnx/|openvino/|metal/)")
# Files that git keeps itself are hashed here; the hub keeps larger ones (LFS) with their SHA-256.
_LARGEST_TEXT = 64 * 1024 * 1024


class HubError(Exception):
    """Why a source can not be locked; the text continues its name."""


class Hubs:
    """A connection to both hubs; use it as a context manager.

    `seconds` is how long a hub may take to answer.
    """

    def __init__(self, seconds: float = 60) -> None:
        self._hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
        self._library = os.environ.get("LLMHOST_OLLAMA_LIBRARY", OLLAMA_LIBRARY).rstrip("/")
        token = os.environ.get("HF_TOKEN", "")
        self._token = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(timeout=seconds, follow_redirects=True)

    def __enter__(self) -> "Hubs":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def pins(self, source: HubSource | OllamaSource, revision: str | None) -> dict[str, Any]:
        """An entry of the lock file. Raises HubError."""
        if isinstance(source, OllamaSource):
            return self._library_pins(source)
        return self._hub_pins(source, revision or "main")

    def _hub_pins(self, source: HubSource, revision: str) -> dict[str, Any]:
        # https://huggingface.co/docs/hub/api: blobs=true adds size and LFS hash of each file.
        address = f"{self._hub}/api/models/{source.repository}/revision/{revision}"
        told = _json(self._get(address, self._token, params={"blobs": "true"}))
        commit = str(told.get("sha", ""))
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise HubError("is not told with its commit")
        siblings = {str(each["rfilename"]): each for each in told.get("siblings", ())}
        pins: dict[str, Any] = {"revision": commit, **_card(told)}
        if source.file:
            if source.file not in siblings:
                raise HubError(f"has no such file; it has {_some(siblings)}")
            sha256 = self._sha256(source, commit, siblings[source.file])
            return {**pins, "sha256": sha256, "bytes": siblings[source.file].get("size")}
        names = [name for name in siblings if _READ.search(name) and not _LEFT_OUT.search(name)]
        if not any(name.endswith(".safetensors") for name in names):
            raise HubError(f"has no safetensors; it has {_some(siblings)}")
        files = [
            {"path": name, "sha256": self._sha256(source, commit, siblings[name])}
            for name in sorted(names)
        ]
        return {**pins, "files": files, "bytes": sum(siblings[n].get("size") or 0 for n in names)}

    def _sha256(self, source: HubSource, commit: str, sibling: Mapping[str, Any]) -> str:
        if lfs := sibling.get("lfs"):
            return str(lfs["sha256"])
        if (sibling.get("size") or 0) > _LARGEST_TEXT:
            raise HubError(f"is told without the hash of {sibling['rfilename']}")
        path = source.url(commit, sibling["rfilename"]).removeprefix(HUB)
        return hashlib.sha256(self._get(self._hub + path, self._token).content).hexdigest()

    def _library_pins(self, source: OllamaSource) -> dict[str, Any]:
        address = source.url(MANIFEST).replace(OLLAMA_LIBRARY, self._library, 1)
        answer = self._get(address, {"Accept": MANIFEST_TYPE})
        manifest = _json(answer)
        blobs = [manifest.get("config", {}), *manifest.get("layers", ())]
        digests = list(dict.fromkeys(str(blob.get("digest", "")) for blob in blobs))
        if not all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests):
            raise HubError("has a manifest without digests")
        files = [{"path": MANIFEST, "sha256": hashlib.sha256(answer.content).hexdigest()}]
        files += [
            {"path": digest.replace(":", "-"), "sha256": digest.removeprefix("sha256:")}
            for digest in digests
        ]
        return {"files": files, "bytes": sum(int(blob.get("size", 0)) for blob in blobs)}

    def _get(
        self, address: str, headers: Mapping[str, str], params: Mapping[str, str] | None = None
    ) -> httpx.Response:
        try:
            answer = self._http.get(address, headers=dict(headers), params=params)
        except httpx.HTTPError as error:
            raise HubError(f"can not be asked for: {error}") from None
        if answer.status_code in (401, 403):
            raise HubError("is not for everybody: accept its terms, and put a token in HF_TOKEN")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise HubError("does not exist, or not in that revision")
        if answer.is_error:
            raise HubError(f"was answered with status {answer.status_code}")
        return answer


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        told = answer.json()
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise HubError("was answered with something else than a hub's JSON")
    return told


def _card(told: Mapping[str, Any]) -> dict[str, Any]:
    """Licence and ancestors, as the model card's front matter has them."""
    card = told.get("cardData") or {}
    bases = card.get("base_model") or []
    bases = [bases] if isinstance(bases, str) else list(bases)
    licence = card.get("license")
    found = {"licence": licence} if isinstance(licence, str) else {}
    return {**found, **({"base_models": bases} if bases else {})}


def _some(names: Mapping[str, Any]) -> str:
    def shown() -> Iterator[str]:
        files = [name for name in names if not name.startswith(".")]
        yield from files[:8]
        if len(files) > 8:
            yield f"{len(files) - 8} more"

    return ", ".join(shown()) or "none at all"
