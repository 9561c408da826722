#!/usr/bin/python3 -B
"""A double of Ollama 0.31.1: its HTTP interface, its store on disk and its scheduler, and no model.

It answers as the real one did in tests/unit/data/ollama-0.31.1.json, which the contract tests
compare; what is not in there follows upstream's source (server/, manifest/, openai/, anthropic/).
It says nothing about inference. One file without dependencies, for it is the only program of an
image (testbed/double_images.py). The store is always read-only, as it is in llmhost's container.
"""

import base64
import hashlib
import json
import os
import re
import struct
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition
from typing import Any, BinaryIO

STORE = Path(os.environ.get("OLLAMA_MODELS", "/root/.ollama/models"))
HOST, _, PORT = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434").rpartition(":")
WORDS = ["The", " double", " of", " Ollama", " says", " this", "."]
IMAGE = "application/vnd.ollama.image."
JSON, JSON_UTF8 = "application/json", "application/json; charset=utf-8"
FOREVER = 2**63 / 1e9
VECTOR = 32
LONG = 100
RUNNER_OPTIONS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread")
INTEGERS = ("num_keep", "seed", "num_predict", "top_k", "repeat_last_n", *RUNNER_OPTIONS[:3])
FLOATS = ("top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty")
Json = dict[str, Any]


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, text: str, kind: str = JSON_UTF8) -> None:
        super().__init__(text)
        self.status, self.kind = status, kind


# --- The store -------------------------------------------------------------------------------


def read_header(path: Path) -> tuple[Json, list[Json]]:
    """Metadata and tensors of a GGUF file; arrays are None, as `/api/show` gives them."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise Refused(500, "unable to load model: invalid file magic")
        _, tensor_count, entry_count = struct.unpack("<IQQ", file.read(20))
        entries = (_entry(file) for _ in range(entry_count))
        return dict(entries), [_tensor(file) for _ in range(tensor_count)]


def _unpack(file: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]


def _text(file: BinaryIO) -> str:
    return file.read(_unpack(file, "Q")).decode(errors="replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == 8:
        return _text(file)
    if kind == 9:
        each, count = _unpack(file, "I"), _unpack(file, "Q")
        for _ in range(count):
            _value(file, each)
        return None
    return _unpack(file, {10: "Q", 11: "q", 12: "d"}.get(kind) or "BbHhIif?"[kind])


def _entry(file: BinaryIO) -> tuple[str, Any]:
    return _text(file), _value(file, _unpack(file, "I"))


def _tensor(file: BinaryIO) -> Json:
    name = _text(file)
    shape = [_unpack(file, "Q") for _ in range(_unpack(file, "I"))]
    kind, _ = _unpack(file, "I"), _unpack(file, "Q")
    return {"name": name, "type": "F32" if kind == 0 else str(kind), "shape": shape}


def full_name(model: str) -> tuple[str, str, str, str]:
    """types/model/name.go: host, namespace, model and tag, with their defaults."""
    rest, _, tag = model.partition(":")
    parts = ["registry.ollama.ai", "library", *rest.split("/")][-3:]
    return parts[0], parts[1], parts[2], tag or "latest"


def blob(digest: str) -> Path:
    return STORE / "blobs" / digest.replace(":", "-")


class Model:
    """A manifest of the store, and what its layers say."""

    def __init__(self, path: Path) -> None:
        text = path.read_bytes()
        manifest = json.loads(text)
        self.full = "/".join(path.parts[-4:-1]) + f":{path.name}"
        self.short = self.full.removeprefix("registry.ollama.ai/").removeprefix("library/")
        self.digest = hashlib.sha256(text).hexdigest()
        self.modified = path.stat().st_mtime
        self.config: Json = json.loads(blob(manifest["config"]["digest"]).read_text())
        self.size = sum(each["size"] for each in (manifest["config"], *manifest["layers"]))
        self.options: Json = {}
        self.system, self.template = "", ""
        self.weights, self.adapters = Path(), list[Path]()
        for layer in manifest["layers"]:
            self._add(layer["mediaType"].removeprefix(IMAGE), blob(layer["digest"]))
        self.header, self.tensors = read_header(self.weights)

    def _add(self, kind: str, path: Path) -> None:
        match kind:
            case "model":
                self.weights = path
            case "adapter":
                self.adapters.append(path)
            case "params":
                self.options |= json.loads(path.read_text())
            case "system":
                self.system = path.read_text()
            case "template":
                self.template = path.read_text()

    @property
    def architecture(self) -> str:
        return str(self.header["general.architecture"])

    @property
    def embeds(self) -> bool:
        return f"{self.architecture}.pooling_type" in self.header

    @property
    def capabilities(self) -> list[str]:
        chat = self.template or str(self.header.get("tokenizer.chat_template", ""))
        tools = ["tools"] if re.search(r"tools|tool_call", chat) else []
        return ["embedding" if self.embeds else "completion", *tools]

    @property
    def trained_context(self) -> int:
        return int(self.header.get(f"{self.architecture}.context_length", 4096))

    @property
    def details(self) -> Json:
        return {
            "parent_model": "",
            "format": self.config.get("model_format", ""),
            "family": self.config.get("model_family", ""),
            "families": self.config.get("model_families"),
            "parameter_size": self.config.get("model_type", ""),
            "quantization_level": self.config.get("file_type", ""),
        }

    @property
    def listed(self) -> Json:
        width = self.header.get(f"{self.architecture}.embedding_length", 0)
        lengths = {"context_length": self.trained_context, "embedding_length": width}
        return {
            "name": self.short,
            "model": self.short,
            "modified_at": stamp(self.modified),
            "size": self.size,
            "digest": self.digest,
            "details": self.details | lengths,
            "capabilities": self.capabilities,
        }

    @property
    def shown(self) -> Json:
        template = self.template or "{{ .Prompt }}"
        lines = [f"FROM {self.weights}", f"TEMPLATE {template}"]
        parameters = "\n".join(
            f"{name:<30} {json.dumps(each, ensure_ascii=False)}"
            for name, value in self.options.items()
            for each in (value if isinstance(value, list) else [value])
        )
        count = sum(_product(tensor["shape"]) for tensor in self.tensors)
        told = {"parameters": parameters} if parameters else {}
        return {
            "modelfile": "\n".join(lines) + "\n",
            **told,
            "template": template,
            **({"system": self.system} if self.system else {}),
            "details": self.details,
            "model_info": self.header | {"general.parameter_count": count},
            "tensors": self.tensors,
            "capabilities": self.capabilities,
            "modified_at": stamp(self.modified),
        }


def _product(shape: list[int]) -> int:
    result = 1
    for each in shape:
        result *= each
    return result


def all_models() -> list[Model]:
    paths = (STORE / "manifests").glob("*/*/*/*")
    return sorted(map(Model, paths), key=lambda model: -model.modified)


def find(name: str, refusal: Refused) -> Model:
    path = STORE.joinpath("manifests", *full_name(name))
    if not name or not path.is_file():
        raise refusal
    return Model(path)


def stamp(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(min(seconds, 1e11)))
    return f"{whole}.{int(seconds % 1 * 1e9):09}Z"


# --- The scheduler (server/sched.go) ---------------------------------------------------------


class Runner:
    """One llama-server: weights with the options and adapters that it was started with."""

    def __init__(self, model: Model, options: Json, duration: float) -> None:
        self.model, self.options, self.duration = model, options, duration
        self.expires = time.time() + duration
        self.busy = 0


class Scheduler:
    """Runners by path of their weights; when all are taken, the idle one with the shortest stay
    goes first."""

    def __init__(self) -> None:
        self.runners: dict[Path, Runner] = {}
        self.lock = Condition()
        self.most = int(os.environ.get("OLLAMA_MAX_LOADED_MODELS", "0")) or 3
        self.default = seconds(os.environ.get("OLLAMA_KEEP_ALIVE", "5m"))

    def use(self, model: Model, options: Json, keep_alive: object, *, hold: bool = False) -> Runner:
        """The runner for a request. One that is held stays busy until it is released."""
        given = None if keep_alive is None else seconds(keep_alive)
        wanted = {name: options[name] for name in RUNNER_OPTIONS if name in options}
        wanted["num_ctx"] = min(int(wanted.get("num_ctx", 4096)), model.trained_context)
        with self.lock:
            self._expire()
            runner = self.runners.get(model.weights)
            if runner and (runner.options, runner.model.adapters) != (wanted, model.adapters):
                while runner.busy:
                    self.lock.wait(60)
                self.runners.pop(model.weights, None)
                runner = None
            if runner is None:
                runner = self._start(model, wanted, self.default if given is None else given)
            if given is not None:
                runner.duration = given
            runner.busy += 1
        if not hold:
            self.release(runner)
        return runner

    def release(self, runner: Runner) -> None:
        with self.lock:
            runner.busy -= 1
            runner.expires = time.time() + runner.duration
            if runner.duration <= 0 and not runner.busy:
                self.runners.pop(runner.model.weights, None)
            self.lock.notify_all()

    def _start(self, model: Model, options: Json, duration: float) -> Runner:
        while len(self.runners) >= self.most:
            idle = [path for path, each in self.runners.items() if not each.busy]
            if idle:
                del self.runners[min(idle, key=lambda p: (self.runners[p].duration, str(p)))]
            else:
                self.lock.wait(60)
        self.runners[model.weights] = runner = Runner(model, options, duration)
        sys.stderr.write(f'msg="loaded runners" count={len(self.runners)} model={model.weights}\n')
        return runner

    def unload(self, model: Model) -> None:
        with self.lock:
            self.runners.pop(model.weights, None)

    def _expire(self) -> None:
        for path in [path for path, each in self.runners.items() if each.expires < time.time()]:
            del self.runners[path]

    def running(self) -> list[Json]:
        with self.lock:
            self._expire()
            found = sorted(self.runners.values(), key=lambda runner: -runner.expires)
        return [
            {
                "name": runner.model.short,
                "model": runner.model.short,
                "size": runner.model.size,
                "digest": runner.model.digest,
                "details": runner.model.details,
                "expires_at": stamp(runner.expires),
                "size_vram": 0,
                "context_length": runner.options["num_ctx"],
            }
            for runner in found
        ]


def seconds(duration: object) -> float:
    """Of a number, or of a text such as `5m`; negative: for ever."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([smh]?)", str(duration))
    if not match or isinstance(duration, bool):
        raise Refused(400, f'time: invalid duration "{duration}"')
    number = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
    return FOREVER if number < 0 else number


scheduler = Scheduler()


def checked_options(body: Json) -> Json:
    given = body.get("options") or {}
    for name, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        kind = "integer" if name in INTEGERS else "float32" if name in FLOATS else ""
        if kind and value is not None and not number:
            raise Refused(500, f'option "{name}" must be of type {kind}')
    return {name: value for name, value in given.items() if value is not None}


# --- Answers ---------------------------------------------------------------------------------


class Text:
    """An answer that is not JSON."""

    def __init__(self, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        self.text, self.kind = text, kind


class Stream:
    """An answer in parts; a long one takes its time, and keeps its runner busy."""

    def __init__(self, kind: str, lines: list[str], runner: Runner | None = None) -> None:
        self.kind, self.lines, self.runner = kind, lines, runner
        self.pause = 0.02 if len(lines) > LONG else 0.0


class Said:
    """The words of an answer, and how it ended."""

    def __init__(self, body: Json, model: Model, asked: str) -> None:
        self.started = time.time()
        self.options = model.options | checked_options(body)
        words = ['{"ok":', " true}"] if body.get("format") else WORDS
        most = int(self.options.get("num_predict", -1))
        if most > LONG and words is WORDS:
            words = WORDS * (most // len(WORDS) + 1)
        self.words = words if most < 0 else words[:most]
        self.reason = "length" if 0 <= most < len(words) else "stop"
        self.prompt_tokens = len(f"{model.system} {asked}".split()) + 1

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def last(self) -> Json:
        """What only the last part of an answer has."""
        return {
            "done": True,
            "done_reason": self.reason,
            "total_duration": max(1, int((time.time() - self.started) * 1e9)),
            "load_duration": 1000,
            "prompt_eval_count": self.prompt_tokens,
            "prompt_eval_duration": 1000,
            "eval_count": len(self.words),
            "eval_duration": 1000,
        }

    def usage(self) -> Json:
        sent, got = self.prompt_tokens, len(self.words)
        return {"prompt_tokens": sent, "completion_tokens": got, "total_tokens": sent + got}


def required(body: Json, name: str, kind: type, go_name: str) -> Any:
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        kinds: dict[type, str] = {list: "array", dict: "object", str: "string"}
        json_kind = kinds.get(type(value), "number")
        place = f"{go_name}.{name} of type {'string' if kind is str else '[]api.Message'}"
        raise Refused(400, f"json: cannot unmarshal {json_kind} into Go struct field {place}")
    return value


def generate(body: Json) -> object:
    name = required(body, "model", str, "GenerateRequest") or ""
    prompt = required(body, "prompt", str, "GenerateRequest") or ""
    return native(body, name, prompt, chat=False)


def chat(body: Json) -> object:
    name = required(body, "model", str, "ChatRequest") or ""
    messages = required(body, "messages", list, "ChatRequest") or []
    return native(body, name, " ".join(str(each.get("content")) for each in messages), chat=True)


def native(body: Json, name: str, asked: str, *, chat: bool) -> object:
    _refuse_cloud(name)
    missing = Refused(404, f"model '{name}' not found")
    model = find(name, missing if name or not chat else Refused(400, "model is required"))

    def part(text: str) -> Json:
        head = {"model": name, "created_at": stamp(time.time())}
        said = {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
        return {**head, **said, "done": False}

    if not asked and body.get("keep_alive") is not None and seconds(body["keep_alive"]) == 0:
        scheduler.unload(model)
        return part("") | {"done": True, "done_reason": "unload"}
    _check_able(body, model, name, "chat" if chat else "generate")
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


def _refuse_cloud(name: str) -> None:
    if name.endswith(("-cloud", ":cloud")):
        raise Refused(403, "ollama cloud is disabled: remote model is unavailable")


def _check_able(body: Json, model: Model, name: str, what: str) -> None:
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


# --- The interfaces of OpenAI and Anthropic (openai/, anthropic/, middleware/) ----------------


def number(prefix: str) -> str:
    return f"{prefix}{int(time.time() * 1e6) % 1000000}"


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
    _refuse_cloud(name)
    model = find(name, Refused(404, f"model '{name}' not found", JSON))
    _check_able(wanted, model, name, "chat" if chat else "generate")
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
        told = {key: {"role": "assistant", "content": text}} if chat else {"text": text}
        return {"index": 0, **told, "finish_reason": reason}

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
    told = {"object": "list", "data": data, "model": body["model"], "usage": usage}
    return Text(json.dumps(told) + "\n", kind=JSON)


def _encoded(values: list[float], body: Json) -> object:
    if body.get("encoding_format") != "base64":
        return values
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def responses(body: Json) -> object:
    said = speak(body, str(body.get("input")))
    now, item = int(time.time()), number("msg_")
    content = [{"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}]
    message = {"id": item, "type": "message", "status": "completed", "role": "assistant"}
    usage = said.usage()
    told: Json = {
        "id": number("resp_"),
        "object": "response",
        "created_at": now,
        "completed_at": now,
        "status": "completed",
        "model": body["model"],
        "output": [message | {"content": content}],
        "text": {"format": {"type": "text"}},
        "tools": body.get("tools", []),
        "tool_choice": "auto",
        "truncation": "disabled",
        "parallel_tool_calls": True,
        "store": False,
        "background": False,
        "service_tier": "default",
        "metadata": {},
        "temperature": body.get("temperature", 1),
        "top_p": body.get("top_p", 1),
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "max_output_tokens": body.get("max_output_tokens"),
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }
    absent = "error incomplete_details instructions max_tool_calls reasoning"
    absent += " previous_response_id prompt_cache_key safety_identifier"
    told |= dict.fromkeys(absent.split())
    return _response_events(told, said) if body.get("stream") else Text(_line(told), kind=JSON)


def _response_events(told: Json, said: Said) -> Stream:
    (message,) = told["output"]
    begun = told | {"status": "in_progress", "output": [], "usage": None, "completed_at": None}
    place = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    empty = message | {"status": "in_progress", "content": []}
    events: list[tuple[str, Json]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        ("response.output_item.added", {"output_index": 0, "item": empty}),
        ("response.content_part.added", place | {"part": part}),
        *(("response.output_text.delta", place | {"delta": w, "logprobs": []}) for w in said.words),
        ("response.output_text.done", place | {"text": said.text, "logprobs": []}),
        ("response.content_part.done", place | {"part": message["content"][0]}),
        ("response.output_item.done", {"output_index": 0, "item": message}),
        ("response.completed", {"response": told}),
    ]
    return _events([(n, d | {"sequence_number": i}) for i, (n, d) in enumerate(events)])


def messages(body: Json) -> object:
    said = speak(body, str(body.get("messages")))
    usage = {"input_tokens": said.prompt_tokens, "output_tokens": len(said.words)}
    reason = {"length": "max_tokens", "stop": "end_turn"}[said.reason]
    head = {"id": number("msg_"), "type": "message", "role": "assistant", "model": body["model"]}
    if not body.get("stream"):
        content = [{"type": "text", "text": said.text}]
        told = head | {"content": content, "stop_reason": reason, "usage": usage}
        return Text(_line(told), kind=JSON)
    begun = head | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 0}}
    block = {"index": 0, "content_block": {"type": "text", "text": ""}}
    deltas = ({"index": 0, "delta": {"type": "text_delta", "text": word}} for word in said.words)
    events: list[tuple[str, Json]] = [
        ("message_start", {"message": begun}),
        ("content_block_start", block),
        *(("content_block_delta", delta) for delta in deltas),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": {"stop_reason": reason}, "usage": usage}),
        ("message_stop", {}),
    ]
    return _events(events)


def _events(events: list[tuple[str, Json]]) -> Stream:
    lines = [
        f"event: {name}\ndata: {json.dumps({'type': name, **told})}\n\n" for name, told in events
    ]
    return Stream("text/event-stream", lines)


def _line(told: Json) -> str:
    return json.dumps(told) + "\n"


def openai_model(model: Model, name: str) -> Json:
    created, owner = int(model.modified), model.full.split("/")[1]
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def openai_models() -> Text:
    data = [openai_model(model, model.short) for model in all_models()]
    return Text(_line({"object": "list", "data": data}), kind=JSON)


def retrieve(name: str) -> Text:
    model = find(name, Refused(404, f"model '{name}' not found", JSON))
    return Text(_line(openai_model(model, name)), kind=JSON)


# --- What changes the store ------------------------------------------------------------------


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


READ: dict[str, Callable[[], object]] = {
    "/": lambda: Text("Ollama is running"),
    "/api/version": lambda: {"version": "0.31.1"},
    "/api/status": lambda: {"cloud": {"disabled": True, "source": "env"}},
    "/api/tags": lambda: {"models": [model.listed for model in all_models()]},
    "/api/ps": lambda: {"models": scheduler.running()},
    "/api/experimental/model-recommendations": lambda: {
        "recommendations": [
            {"model": "a:cloud", "description": "A", "context_length": 1, "max_output_tokens": 1}
        ]
    },
    "/v1/models": openai_models,
}
WRITE: dict[str, Callable[[Json], object]] = {
    "/api/show": show,
    "/api/generate": generate,
    "/api/chat": chat,
    "/api/embed": embed,
    "/api/embeddings": embeddings,
    "/api/create": create,
    "/api/copy": read_only("mkdir", "manifests/registry.ollama.ai/library"),
    "/api/pull": remote,
    "/api/push": remote,
    "/api/experimental/web_search": refuse_cloud("web search"),
    "/api/experimental/web_fetch": refuse_cloud("web fetch"),
    "/v1/chat/completions": lambda body: complete(body, chat=True),
    "/v1/completions": lambda body: complete(body, chat=False),
    "/v1/embeddings": openai_embeddings,
    "/v1/responses": responses,
    "/v1/messages": messages,
    "/v1/audio/transcriptions": transcribe,
}
HEAD = ("/", "/api/version", "/api/tags")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        sys.stderr.write(f"[GIN] {format % args}\n")

    def handle_any(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self._send(200, self._answer(self.path.partition("?")[0], content))
        except Refused as refused:
            self._refuse(refused)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = handle_any

    def _answer(self, path: str, content: bytes) -> object:
        if path.startswith("/api/blobs/") and self.command in ("HEAD", "POST"):
            if self.command == "POST":
                return read_only("open", "blobs/sha256-new")({})
            if not blob(path.rpartition("/")[2]).exists():
                raise Refused(404, "blob not found")
            return Text("", JSON_UTF8)
        known = path in READ or path in WRITE or path.startswith("/v1/models/")
        if self.command == "GET" and path.startswith("/v1/models/"):
            return retrieve(path.removeprefix("/v1/models/"))
        if path in READ and (self.command == "GET" or (self.command == "HEAD" and path in HEAD)):
            return READ[path]()
        if path in WRITE and self.command == "POST":
            return WRITE[path](parsed(content))
        status, what = (405, "method not allowed") if known else (404, "page not found")
        raise Refused(status, f"{status} {what}", "text/plain")

    def _refuse(self, refused: Refused) -> None:
        told: object = {"error": str(refused)}
        if refused.kind == "text/plain":
            told = Text(str(refused), refused.kind)
        elif self.path.startswith("/v1/messages"):
            error = {"type": _error_type(refused.status), "message": str(refused)}
            told = {"type": "error", "error": error, "request_id": number("req_")}
        elif self.path.startswith("/v1/"):
            kind = _error_type(refused.status)
            told = {"error": {"message": str(refused), "type": kind, "param": None, "code": None}}
        text = told.text if isinstance(told, Text) else json.dumps(told)
        self._send(refused.status, Text(text, refused.kind))

    def _send(self, status: int, told: object) -> None:
        if isinstance(told, Stream):
            self._stream(told)
            return
        answer = told if isinstance(told, Text) else Text(json.dumps(told), JSON_UTF8)
        data = answer.text.encode()
        self.send_response(status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _stream(self, stream: Stream) -> None:
        self.send_response(200)
        self.send_header("Content-Type", stream.kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for line in [*stream.lines, ""]:
                self.wfile.write(f"{len(line.encode()):x}\r\n{line}\r\n".encode())
                self.wfile.flush()
                time.sleep(stream.pause)
        finally:
            if stream.runner:
                scheduler.release(stream.runner)


def _error_type(status: int) -> str:
    return {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")


def parsed(content: bytes) -> Json:
    """The body as Go reads it, with its errors."""
    if not content:
        raise Refused(400, "missing request body")
    try:
        body = json.loads(content)
    except ValueError:
        found = re.match(rb'\s*\{\s*([^"}\s])', content)
        what = f"'{found[1].decode()}' looking for beginning of object key string" if found else ""
        raise Refused(400, f"invalid character {what}") from None
    if not isinstance(body, dict):
        raise Refused(400, "json: cannot unmarshal into Go value of an object")
    return {name.casefold(): value for name, value in body.items()}


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def serve() -> None:
    # As the real one does at its start: a key for the library.
    home = Path(os.environ["HOME"], ".ollama")
    home.mkdir(parents=True, exist_ok=True)
    (home / "id_ed25519").write_text("a double's key\n")
    with suppress(KeyboardInterrupt):
        Server((HOST, int(PORT)), Handler).serve_forever()


# --- The command line, a client of the server ------------------------------------------------


def call(path: str, body: Json | None = None) -> Any:
    place = "127.0.0.1" if HOST == "0.0.0.0" else HOST
    request = urllib.request.Request(f"http://{place}:{PORT}{path}")
    request.data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"Error: {json.load(error)['error']}")
    except OSError:
        sys.exit("Error: could not connect to ollama server, run 'ollama serve' to start it")


def table(path: str) -> Iterator[str]:
    yield "NAME    ID    SIZE    PROCESSOR    CONTEXT    UNTIL"
    for each in call(path)["models"]:
        until = "Forever" if each.get("expires_at", "") > "2100" else "4 minutes from now"
        yield f"{each['name']}    {each['digest'][:12]}    1 MB    100% CPU    512    {until}    "


def main(command: str, *arguments: str) -> None:
    names = [each for each in arguments if not each.startswith("--")]
    options = dict(each[2:].partition("=")[::2] for each in arguments if each.startswith("--"))
    match command:
        case "serve":
            serve()
        case "list":
            print("\n".join(table("/api/tags")))
        case "ps":
            print("\n".join(table("/api/ps")))
        case "run":
            run(names[0], " ".join(names[1:]), options.get("keepalive"))
        case _:
            sys.exit(f'Error: unknown command "{command}" for "ollama"')


def run(model: str, prompt: str, keep_alive: str | None) -> None:
    """cmd/cmd.go: an embedding model embeds the prompt, and refuses to have none."""
    body = {"model": model, "keep_alive": keep_alive, "stream": False}
    if "embedding" in call("/api/show", {"model": model})["capabilities"]:
        if not prompt:
            sys.exit('Error: embedding models require input text. Usage: ollama run MODEL "text"')
        print(json.dumps(call("/api/embed", body | {"input": prompt})["embeddings"][0]))
        return
    print(call("/api/generate", body | {"prompt": prompt})["response"])


if __name__ == "__main__":
    main(*sys.argv[1:])
