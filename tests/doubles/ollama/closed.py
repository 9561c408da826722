"""What a read-only store without a network refuses."""

from collections.abc import Callable

from tests.doubles.ollama.refusal import JSON, Json, Refused
from tests.doubles.ollama.store import STORE, find


def read_only(what: str, path: str) -> Callable[[Json], object]:
    def refuse(_: Json) -> object:
        raise Refused(500, f"{what} {STORE}/{path}: read-only file system")

    return refuse


def create(body: Json) -> object:
    if not body.get("from") and not body.get("files"):
        raise Refused(400, "neither 'from' or 'files' was specified", JSON)
    raise Refused(500, f"open {STORE}/blobs/sha256-new: read-only file system", JSON)


def remote(body: Json) -> object:
    lookup = "lookup registry.ollama.ai: connect: network is unreachable"
    raise Refused(500, f"pull model manifest of {body.get('model')}: dial tcp: {lookup}", JSON)


def refuse_cloud(what: str) -> Callable[[Json], object]:
    def refuse(_: Json) -> object:
        raise Refused(403, f"ollama cloud is disabled: {what} is unavailable")

    return refuse


def show(body: Json) -> Json:
    name = str(body.get("model") or body.get("name") or "")
    return find(name, Refused(404, f"model '{':'.join(_tagged(name))}' not found")).shown


def _tagged(name: str) -> tuple[str, str]:
    model, _, tag = name.partition(":")
    return model, tag or "latest"


def transcribe(_: Json) -> object:
    reason = "request Content-Type isn't multipart/form-data"
    raise Refused(400, f"failed to parse multipart form: {reason}")
