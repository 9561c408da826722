"""The interface of OpenAI (openai/, middleware/)."""

import base64
import json
import struct
import time

from tests.doubles.ollama.answers import Said, Stream, Text, line, number, required
from tests.doubles.ollama.native import check_able, embed, refuse_remote
from tests.doubles.ollama.refusal import JSON, Json, Refused
from tests.doubles.ollama.scheduler import scheduler
from tests.doubles.ollama.store import Model, all_models, find


def native_body(body: Json) -> Json:
    """What the middleware makes of a request: temperature and top_p are never the model's own."""
    most = body.get("max_tokens", body.get("max_output_tokens"))
    options = {name: body.get(name, 1.0) for name in ("temperature", "top_p")}
    wanted = body.get("response_format") or {}
    schema = (wanted.get("json_schema") or {}).get("schema")
    form = schema or ("json" if wanted.get("type") == "json_object" else None)
    if most is not None:
        options["num_predict"] = most
    tools = {"tools": body["tools"]} if body.get("tools") else {}
    return {"model": body.get("model"), "options": options, "format": form, **tools}


def speak(body: Json, asked: str, *, chat: bool = True) -> Said:
    """The engine's answer to a request of another interface."""
    name, wanted = str(body.get("model") or ""), native_body(body)
    refuse_remote(name)
    model = find(name, Refused(404, f"model '{name}' not found", JSON))
    check_able(wanted, model, name, "chat" if chat else "generate")
    said = Said(wanted, model, asked)
    scheduler.use(model, said.options, None)
    return said


def complete(body: Json, *, chat: bool) -> object:
    if chat and not body.get("messages"):
        raise Refused(400, "[] is too short - 'messages'")
    if not chat:
        required(body, "prompt", str, "CompletionRequest")
    said = speak(body, str(body.get("messages") or body.get("prompt")), chat=chat)
    kind = "chat.completion" if chat else "text_completion"
    head = {
        "id": number("chatcmpl-" if chat else "cmpl-"),
        "object": kind,
        "created": int(time.time()),
        "model": body["model"],
        "system_fingerprint": "fp_ollama",
    }

    def choice(text: str, key: str, reason: str | None) -> Json:
        payload = {key: {"role": "assistant", "content": text}} if chat else {"text": text}
        return {"index": 0, **payload, "finish_reason": reason}

    if not body.get("stream"):
        choices = [choice(said.text, "message", said.reason)]
        return Text(
            json.dumps({**head, "choices": choices, "usage": said.usage()}) + "\n", kind=JSON
        )
    head["object"] = "chat.completion.chunk" if chat else kind
    chunks: list[Json] = [
        *({**head, "choices": [choice(word, "delta", None)]} for word in said.words),
        {**head, "choices": [choice("", "delta", said.reason)]},
    ]
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**head, "choices": [], "usage": said.usage()})
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return Stream("text/event-stream", [*lines, "data: [DONE]\n\n"])


def openai_embeddings(body: Json) -> Text:
    if not body.get("input"):
        raise Refused(400, "invalid input")
    found = embed(body)
    data = [
        {"object": "embedding", "embedding": _encoded(each, body), "index": index}
        for index, each in enumerate(found["embeddings"])
    ]
    tokens = found["prompt_eval_count"]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    payload = {"object": "list", "data": data, "model": body["model"], "usage": usage}
    return Text(json.dumps(payload) + "\n", kind=JSON)


def _encoded(values: list[float], body: Json) -> object:
    if body.get("encoding_format") != "base64":
        return values
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def openai_model(model: Model, name: str) -> Json:
    created, owner = int(model.modified), model.full.split("/")[1]
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def openai_models() -> Text:
    data = [openai_model(model, model.short) for model in all_models()]
    return Text(line({"object": "list", "data": data}), kind=JSON)


def retrieve(name: str) -> Text:
    model = find(name, Refused(404, f"model '{name}' not found", JSON))
    return Text(line(openai_model(model, name)), kind=JSON)
