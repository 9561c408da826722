"""The interface of Ollama itself, where a model answers (server/routes.go)."""

import hashlib
import json
import time

from tests.doubles.ollama.answers import Said, Stream, required
from tests.doubles.ollama.refusal import Json, Refused
from tests.doubles.ollama.scheduler import checked_options, scheduler, seconds
from tests.doubles.ollama.store import Model, find, stamp

VECTOR = 32


def generate(body: Json) -> object:
    name = required(body, "model", str, "GenerateRequest") or ""
    prompt = required(body, "prompt", str, "GenerateRequest") or ""
    return native(body, name, prompt, chat=False)


def chat(body: Json) -> object:
    name = required(body, "model", str, "ChatRequest") or ""
    messages = required(body, "messages", list, "ChatRequest") or []
    return native(body, name, " ".join(str(each.get("content")) for each in messages), chat=True)


def native(body: Json, name: str, asked: str, *, chat: bool) -> object:
    refuse_remote(name)
    missing = Refused(404, f"model '{name}' not found")
    model = find(name, missing if name or not chat else Refused(400, "model is required"))

    def part(text: str) -> Json:
        head = {"model": name, "created_at": stamp(time.time())}
        said = {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
        return {**head, **said, "done": False}

    if not asked and body.get("keep_alive") is not None and seconds(body["keep_alive"]) == 0:
        scheduler.unload(model)
        return part("") | {"done": True, "done_reason": "unload"}
    check_able(body, model, name, "chat" if chat else "generate")
    said = Said(body, model, asked)
    streams = bool(asked and body.get("stream", True))
    runner = scheduler.use(model, said.options, body.get("keep_alive"), hold=streams)
    if not asked:
        return part("") | {"done": True, "done_reason": "load"}
    last = said.last if chat else said.last | {"context": [1] * said.prompt_tokens}
    if streams:
        parts = [*(part(word) for word in said.words), part("") | last]
        lines = [json.dumps(each) + "\n" for each in parts]
        return Stream("application/x-ndjson", lines, runner)
    return part(said.text) | last


def refuse_remote(name: str) -> None:
    if name.endswith(("-cloud", ":cloud")):
        raise Refused(403, "ollama cloud is disabled: remote model is unavailable")


def check_able(body: Json, model: Model, name: str, what: str) -> None:
    form = body.get("format")
    if model.embeds:
        raise Refused(400, f'"{name}" does not support {what}')
    for wanted, capability in (("tools", "tools"), ("suffix", "insert")):
        if body.get(wanted) and capability not in model.capabilities:
            raise Refused(400, f"{model.full} does not support {capability}")
    if form and form != "json" and not isinstance(form, dict):
        shown = json.dumps(json.dumps(form))
        expected = 'expected "json" or a valid JSON Schema object'
        raise Refused(500, f"invalid format: {shown}; {expected}")


def embed(body: Json) -> Json:
    name, given = str(body.get("model") or ""), body.get("input")
    texts = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise Refused(400, "invalid input type")
    model = find(name, Refused(404, f'model "{name}" not found, try pulling it first'))
    scheduler.use(model, model.options | checked_options(body), body.get("keep_alive"))
    if not texts:
        return {"model": name, "embeddings": []}
    if not model.embeds:
        raise Refused(501, "This server does not support embeddings. Start it with `--embeddings`")
    count = sum(len(text.split()) for text in texts)
    return {
        "model": name,
        "embeddings": [vector(text)[: int(body.get("dimensions") or VECTOR)] for text in texts],
        "total_duration": 2000,
        "load_duration": 1000,
        "prompt_eval_count": count,
    }


def embeddings(body: Json) -> Json:
    found = embed({**body, "input": body.get("prompt") or ""})["embeddings"]
    return {"embedding": found[0] if found else []}


def vector(text: str) -> list[float]:
    return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:VECTOR]]
