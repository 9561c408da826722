"""Sources of models: the forms of `models[].source`, and their URLs. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

HUB = "https://huggingface.co"
OLLAMA_LIBRARY = "https://registry.ollama.ai"


def at_mirror(url: str, mirrors: Mapping[str, str]) -> str:
    """The URL of a hub's file, at the mirror of that hub; `mirrors` are by the hub's URL."""
    for hub, mirror in mirrors.items():
        if url.startswith(f"{hub}/"):
            return mirror.rstrip("/") + url.removeprefix(hub)
    return url


_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_HUB = re.compile(rf"^hf:(?P<repository>{_PART}/{_PART})(?:/(?P<file>[\w./-]+))?$")
_OLLAMA = re.compile(rf"^ollama:(?:(?P<publisher>{_PART})/)?(?P<name>{_PART}):(?P<tag>{_PART})$")


@dataclass(frozen=True)
class HubSource:
    """A file of a Hugging Face repository; an empty `file` means all files."""

    repository: str
    file: str = ""

    def url(self, revision: str, file: str) -> str:
        """URL of a file at a commit."""
        return f"{HUB}/{self.repository}/resolve/{revision}/{file}"


@dataclass(frozen=True)
class OllamaSource:
    """A model of Ollama's library. Its files are `manifest` and the blobs that it lists, with their
    names in Ollama's store, `sha256-<64 hex>`."""

    publisher: str
    name: str
    tag: str

    def url(self, file: str, sha256: str = "") -> str:
        """URL of a file in the registry's protocol.

        The manifest is named by its tag, or if its digest is given by that, as in upstream's own
        client (ollama, server/internal/client/ollama/registry.go, Resolve): tags move.
        """
        base = f"{OLLAMA_LIBRARY}/v2/{self.publisher}/{self.name}"
        if file == MANIFEST:
            return f"{base}/blobs/sha256:{sha256}" if sha256 else f"{base}/manifests/{self.tag}"
        return f"{base}/blobs/{file.replace('sha256-', 'sha256:', 1)}"


MANIFEST = "manifest"


def parse_source(source: str) -> HubSource | OllamaSource | str:
    """Parse a source; a URL or a path is returned unchanged.

    Raises ValueError with a sentence that begins with the option's name."""
    if match := _HUB.match(source):
        return HubSource(match["repository"], match["file"] or "")
    if match := _OLLAMA.match(source):
        return OllamaSource(match["publisher"] or "library", match["name"], match["tag"])
    if source.startswith("hf:"):
        raise ValueError(
            "is not a source at Hugging Face; write 'hf:PUBLISHER/REPOSITORY/FILE' or"
            " 'hf:PUBLISHER/REPOSITORY'"
        )
    if source.startswith("ollama:"):
        raise ValueError(
            "is not a source in Ollama's library; write 'ollama:NAME:TAG' or"
            " 'ollama:PUBLISHER/NAME:TAG'"
        )
    if "://" in source and not source.startswith(("https://", "http://")):
        raise ValueError(
            "is a URL of another scheme; write 'hf:…', 'ollama:…', an https:// URL or a path"
        )
    if "://" in source:
        _refuse_page(source)
    return source


def _refuse_page(address: str) -> None:
    """Raises ValueError for the URL of a web page about a model: it has no weights."""
    parts = urlsplit(address)
    place = [part for part in parts.path.split("/") if part]
    if parts.hostname in _HUB_HOSTS and place[2:3] != ["resolve"]:
        file = place[4:] if place[2:3] == ["blob"] else []
        source = f"hf:{'/'.join([*place[:2], *file])}"
        if not _HUB.match(source):
            source = "hf:PUBLISHER/REPOSITORY/FILE"
        raise ValueError(f"is the URL of a web page at Hugging Face; write '{source}'")
    if parts.hostname in _OLLAMA_HOSTS:
        name = "/".join(place).removeprefix("library/") if len(place) == 2 else ""
        source = f"ollama:{name}" if ":" in name else f"ollama:{name}:TAG"
        if not _OLLAMA.match(source):
            source = "ollama:NAME:TAG"
        raise ValueError(f"is the URL of a web page of Ollama's library; write '{source}'")


_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_OLLAMA_HOSTS = ("ollama.com", "www.ollama.com", "ollama.ai")
