#!/usr/bin/python3 -B
"""A double of vLLM's server: its command line, its needs at its start, its HTTP, and no model.

It proves that vLLM would accept its command line and that clients get through; it proves nothing
about inference or a GPU. Its answers have the shape of the real engine's, which were
recorded (docs/evidence/vllm.md). One file without dependencies, for it is the only program of an
image (testbed/double_images.py).
"""

import argparse
import getpass
import hashlib
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice
from pathlib import Path
from typing import Any

Json = dict[str, Any]

VERSION = "0.32.0"
OWN = " vLLM"
WORDS = ["The", " double", " of", OWN, " says", " this", "."]
"""What the model answers; an adapter that changes it has its own name in it."""
TEMPLATE_TOKENS = 19
"""What the chat template adds to a message."""

_FLAGS = ("enable-prefix-caching", "enforce-eager", "enable-lora", "enable-auto-tool-choice")
_VALUES = (
    *("gpu-memory-utilization", "kv-cache-memory-bytes", "tensor-parallel-size", "max-num-seqs"),
    *(
        "pipeline-parallel-size",
        "distributed-executor-backend",
        "max-num-batched-tokens",
        "disable-access-log-for-endpoints",
    ),
    *("tool-call-parser", "reasoning-parser", "max-loras", "dtype", "seed"),
)
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm serve", allow_abbrev=False)
    parser.add_argument("model", type=Path)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-model-len", type=int, default=2048)
    parser.add_argument("--kv-cache-dtype", choices=["auto", "float16", "bfloat16", "fp8"])
    parser.add_argument("--runner", choices=["generate", "pooling"], default="generate")
    parser.add_argument("--override-generation-config", type=json.loads, default={})
    parser.add_argument("--lora-modules", nargs="+", default=[])
    parser.add_argument("--max-lora-rank", type=int, choices=_RANKS, default=16)
    for name in _FLAGS:
        parser.add_argument(f"--{name}", action="store_true")
    for name in _VALUES:
        parser.add_argument(f"--{name}")
    if sys.argv[1:2] != ["serve"]:
        parser.error(f"unknown command {sys.argv[1:2]}")
    return parser.parse_args(sys.argv[2:])


def load(options: argparse.Namespace) -> None:
    """What the real one would stumble over: the files, the hub, its caches, the user's name."""
    config = json.loads((options.model / "config.json").read_text())
    longest = config.get("max_position_embeddings", 0)
    if options.max_model_len > longest:
        sys.exit(f"ValueError: User-specified max_model_len is greater than the derived {longest}")
    if not sorted(options.model.glob("*.safetensors")):
        sys.exit(f"RuntimeError: Cannot find any model weights with `{options.model}`")
    for module in options.lora_modules:
        name, _, path = module.partition("=")
        try:
            check_adapter(name, Path(path), options.max_lora_rank)
        except Refused as refused:
            sys.exit(f"ValueError: {refused.body['message']}")
    if os.environ.get("HF_HUB_OFFLINE") != "1":
        sys.exit("the double does not look at the hub; the real one would: set HF_HUB_OFFLINE=1")
    compiled = Path(os.environ["VLLM_CACHE_ROOT"], "torch_compile_cache", getpass.getuser())
    compiled.mkdir(parents=True, exist_ok=True)
    program = compiled / "kernel"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    if os.spawnv(os.P_WAIT, program, ["kernel"]) != 0:
        sys.exit(f"{program} can not be run: PyTorch would not load what it compiled")


class Refused(Exception):
    """An error as the engine sends it."""

    def __init__(
        self, message: str, param: str | None = None, status: int = 400, kind: str = ""
    ) -> None:
        self.status = status
        kind = kind or ("NotFoundError" if status == 404 else "BadRequestError")
        self.body = {"message": message, "type": kind, "param": param, "code": status}


_ADAPTED = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    *("embed_tokens", "lm_head"),
)
"""Modules of the recorded model that can be adapted."""
_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


def check_adapter(name: str, home: Path, most: int) -> None:
    """What the real one refuses in an adapter; it does not compare sizes with the model's."""
    try:
        config = json.loads((home / "adapter_config.json").read_text())
    except FileNotFoundError:
        sentence = f"Loading lora {name} failed: No adapter found for {home}"
        raise Refused(sentence, status=404) from None
    reasons = [*unsupported(config, most)] or [*unknown_tensors(home)]
    if reasons:
        failed = "Call to add_lora method failed: Worker failed with error"
        advice = "please check the stack trace above for the root cause"
        sentence = f"{failed} '{' '.join(reasons)}', {advice}"
        raise Refused(sentence, status=500, kind="InternalServerError")


def unsupported(config: Json, most: int) -> Iterator[str]:
    if missing := {"r", "lora_alpha", "target_modules"} - config.keys():
        yield f"Missing required configuration fields: {missing}"
        return
    saved = [m for m in config.get("modules_to_save") or () if m not in ("classifier", "score")]
    if saved:
        yield (
            "vLLM only supports modules_to_save being either None or"
            f' ["classifier", "score"] for classification models. Unsupported'
            f" modules_to_save: {saved}"
        )
    if config.get("use_dora"):
        yield "vLLM does not yet support DoRA."
    if config.get("lora_bias"):
        yield "vLLM does not support LoRA bias (lora_bias)."
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower() not in _STARTS:
        yield f"vLLM does not support init_lora_weights={start!r}."
    if config.get("alora_invocation_tokens"):
        yield "vLLM does not support Activated LoRA (aLoRA)."
    if config.get("layer_replication"):
        yield "vLLM does not support layer_replication."
    if config.get("use_bdlora"):
        yield "vLLM does not support block-diagonal LoRA (BD-LoRA)."
    if config.get("use_qalora"):
        yield "vLLM does not support QALoRA."
    rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    if rank > most:
        yield f"LoRA rank {rank} is greater than max_lora_rank {most}."
    if config.get("bias", "none") != "none":
        yield "Adapter bias is not supported."


def unknown_tensors(home: Path) -> Iterator[str]:
    """The first tensor that cannot be loaded."""
    content = (home / "adapter_model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 + length or not length:
        yield "Error while deserializing header: header too small"
        return
    names = [name for name in json.loads(content[8 : 8 + length]) if name != "__metadata__"]
    ends = r"\.(lora_[AB]\.weight|lora_embedding_[AB])$"
    for name in names:
        if not re.search(ends, name):
            yield f"{name} is unsupported LoRA weight"
            return
        module = re.sub(ends, "", name)
        if module.rpartition(".")[2] not in _ADAPTED:
            modules = [module.removeprefix("base_model.model.")]
            yield f"While loading {home}, expected target modules but received {modules}."
            return
    if len({re.sub(ends, "", name) for name in names}) * 2 > len(names) or not names:
        yield "unsupported operand type(s) for *=: 'NoneType' and 'float'"
        return


def changes_model(home: Path, runner: str) -> bool:
    """Whether a module that is not zero is one of the model's, by its whole name; others are
    ignored (vllm/lora/model_manager.py, activate_adapter; lora/utils.py)."""
    content = (home / "adapter_model.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    inside = r"model\." if runner == "generate" else r"(model\.)?"
    own = rf"(base_model\.model\.)*({inside}(layers\.\d+\..+|embed_tokens)|lm_head)\.lora_\w*B"
    offsets = [header[name]["data_offsets"] for name in header if re.match(own, name)]
    return any(any(content[start + first : start + last]) for first, last in offsets)


def invalid(kind: str, place: str, message: str, value: str) -> Refused:
    """A body that does not have the form of the request."""
    error = {"type": kind, "loc": place, "msg": message, "input": value}
    return Refused(f"1 validation error:\n  {error}", place, kind="Bad Request")


def needs(body: Json, *names: str) -> None:
    for name in names:
        if name not in body:
            value = f"<dict of {len(body)} items>"
            raise invalid("missing", f"body.{name}", "Field required", value)


def tokens_of(text: str) -> list[int]:
    """A token for each byte."""
    return [*text.encode()]


def identity(prefix: str) -> str:
    return prefix + uuid.uuid4().hex[:16]


class Engine:
    """What is served, and the answers to bodies that are JSON objects."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.longest = options.max_model_len
        self.roots = {options.served_model_name: str(options.model)}
        for module in options.lora_modules:
            name, _, path = module.partition("=")
            self.roots[name] = path
        self.answers: dict[str, Callable[[Json], Any]] = {"/tokenize": self.tokenize}
        if os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") == "1":
            self.answers["/v1/load_lora_adapter"] = self.load_adapter
            self.answers["/v1/unload_lora_adapter"] = self.unload_adapter
        if options.runner == "generate":
            self.answers["/v1/chat/completions"] = self.chat
            self.answers["/v1/completions"] = self.completion
            self.answers["/v1/responses"] = self.response
            self.answers["/v1/messages"] = self.message
            self.answers["/v1/messages/count_tokens"] = self.count
        else:
            self.answers["/v1/embeddings"] = self.embed
            self.answers["/v1/score"] = self.score
            self.answers["/v1/rerank"] = self.rerank

    @property
    def names(self) -> list[str]:
        """The model's name, and those of adapters."""
        return [*self.roots]

    def load_adapter(self, body: Json) -> str:
        name, home = body["lora_name"], body["lora_path"]
        invalid_input = "InvalidUserInput"
        if name == self.names[0]:
            sentence = f"The lora adapter '{name}' conflicts with a served base model."
            raise Refused(sentence, kind=invalid_input)
        if name in self.roots:
            sentence = f"The lora adapter '{name}' has already been loaded."
            advice = "If you want to load the adapter in place, set 'load_inplace' to True."
            raise Refused(f"{sentence} {advice}", kind=invalid_input)
        check_adapter(name, Path(home), self.options.max_lora_rank)
        self.roots[name] = home
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload_adapter(self, body: Json) -> str:
        del self.roots[body["lora_name"]]
        return f"Success: LoRA adapter '{body['lora_name']}' removed successfully."

    @property
    def fingerprint(self) -> str:
        return f"vllm-{VERSION}-double"

    def models(self) -> Json:
        return {"object": "list", "data": [*map(self._card, self.roots, self.roots.values())]}

    def _card(self, name: str, root: str) -> Json:
        made, first = int(time.time()), name == self.names[0]
        allowed = dict.fromkeys(("allow_sampling", "allow_logprobs", "allow_view"), True)
        refused = ("allow_create_engine", "allow_search_indices", "allow_fine_tuning")
        permission: Json = {"id": identity("modelperm-"), "object": "model_permission"}
        permission |= {"created": made, **allowed, **dict.fromkeys(refused, False)}
        permission |= {"organization": "*", "group": None, "is_blocking": False}
        card: Json = {"id": name, "object": "model", "created": made, "owned_by": "vllm"}
        card |= {"root": root, "parent": None if first else self.names[0]}
        return card | {
            "max_model_len": self.longest if first else None,
            "permission": [permission],
        }

    def known(self, body: Json) -> str:
        name = str(body.get("model") or self.names[0])
        if name not in self.names:
            aliases = f" Valid aliases: {', '.join(self.names[:1])}."
            pooling = self.options.runner == "pooling"
            sentence = f"The model `{name}` does not exist." + ("" if pooling else aliases)
            raise Refused(sentence, None if pooling else "model", 404)
        return name

    def voice(self, name: str) -> str:
        """The name of an adapter that changes the model; otherwise nothing."""
        adapted = name != self.names[0]
        changed = adapted and changes_model(Path(self.roots[name]), self.options.runner)
        return name if changed else ""

    def prompt(self, tokens: int) -> int:
        if tokens > self.longest:
            raise Refused(
                f"This model's maximum context length is {self.longest} tokens. However, your"
                f" prompt contains at least {self.longest + 1} input tokens, which exceeds this"
                " limit even without any output tokens. Please reduce the length of the input"
                " prompt."
                f" (parameter=input_tokens, value={self.longest + 1})",
                "input_tokens",
            )
        return tokens

    def words(self, body: Json, asked: int | None, prompt: int) -> tuple[list[str], str]:
        """The answer's tokens, and why it ends."""
        if asked is not None and asked < 1:
            sentence = f"max_tokens must be at least 1, got {asked}."
            raise Refused(f"{sentence} (parameter=max_tokens, value={asked})", "max_tokens")
        if asked is not None and asked > self.longest:
            sentence = f"max_tokens={asked} cannot be greater than max_model_len={self.longest}."
            sentence += " Please request fewer output tokens."
            raise Refused(f"{sentence} (parameter=max_tokens, value={asked})", "max_tokens")
        if body.get("n", 1) > 1 and body.get("temperature") == 0:
            raise Refused(f"n must be 1 when using greedy sampling, got {body['n']}.")
        model = self.known(body)
        voice = self.voice(model)
        spoken = [f" {voice}" if word == OWN and voice else word for word in WORDS]
        cap = self.options.override_generation_config.get("max_new_tokens")
        most = min(each for each in (asked, cap, self.longest - prompt) if each is not None)
        if body.get("ignore_eos"):
            return [*islice(cycle(spoken), most)], "length"
        if (wanted := body.get("response_format") or {}).get("type") == "json_schema":
            text = json.dumps(instance(wanted["json_schema"]["schema"]))
            return [text[:most]], "stop" if len(text) <= most else "length"
        return spoken[:most], "stop" if len(spoken) < most else "length"

    def chat(self, body: Json) -> Any:
        needs(body, "messages")
        messages = body["messages"]
        if not isinstance(messages, list):
            sentence = "Input should be a valid list"
            raise invalid("list_type", "body.messages", sentence, str(messages))
        if isinstance(body.get("temperature"), str):
            sentence = "Input should be a valid number, unable to parse string as a number"
            raise invalid("float_parsing", "body.temperature", sentence, body["temperature"])
        model = self.known(body)
        if not messages:
            sentence = (
                "Cannot apply chat template to an empty conversation. Provide at least one message."
            )
            raise Refused(sentence)
        if body.get("tools") and not self.options.enable_auto_tool_choice:
            sentence = "requires --enable-auto-tool-choice and --tool-call-parser to be set"
            raise Refused(f'"auto" tool choice {sentence}')
        prompt = self.prompt(tokens_in(messages))
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        if body.get("max_tokens") == 0:
            asked = 0
        words, reason = self.words(body, asked, prompt)
        head = {"id": identity("chatcmpl-"), "created": int(time.time()), "model": model}
        if body.get("stream"):
            return self._chat_stream(body, head, words, reason, prompt)
        message: Json = {"role": "assistant", "content": "".join(words)}
        for name in ("refusal", "annotations", "audio", "function_call", "reasoning"):
            message[name] = None
        choice: Json = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [chat_logprob(word) for word in words]}
        choice |= {"stop_reason": None, "token_ids": None, "routed_experts": None}
        answer = {"object": "chat.completion", **head, "choices": [choice], "service_tier": None}
        answer |= {"system_fingerprint": self.fingerprint, "usage": usage(prompt, len(words))}
        nothing = ("prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params")
        return answer | dict.fromkeys((*nothing, "ec_transfer_params", "metrics"))

    def _chat_stream(
        self, body: Json, head: Json, words: list[str], reason: str, prompt: int
    ) -> Iterator[str]:
        head = {"object": "chat.completion.chunk", **head}
        delta: Json = {"role": "assistant", "content": ""}
        choice: Json = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        nothing = {"prompt_token_ids": None, "prompt_text": None}
        yield data({**head, "choices": [choice], **nothing})
        for word in words[:-1]:
            choice = {"index": 0, "delta": {"content": word}, "logprobs": None}
            yield data({**head, "choices": [{**choice, "finish_reason": None, "token_ids": None}]})
        choice = {"index": 0, "delta": {"content": words[-1]}, "logprobs": None}
        choice |= {"finish_reason": reason, "stop_reason": None, "token_ids": None}
        yield from self._end(body, head, {"choices": [choice]}, prompt, len(words))

    def _end(self, body: Json, head: Json, last: Json, prompt: int, answer: int) -> Iterator[str]:
        """The fingerprint is in the last chunk, which may be that of the usage."""
        mark = {"system_fingerprint": self.fingerprint}
        if (body.get("stream_options") or {}).get("include_usage"):
            yield data({**head, **last})
            count = usage(prompt, answer)
            counts = {name: each for name, each in count.items() if each is not None}
            yield data({**head, "choices": [], "usage": counts, **mark})
        else:
            yield data({**head, **last, **mark})
        yield "data: [DONE]\n\n"

    def completion(self, body: Json) -> Any:
        model = self.known(body)
        prompts = body.get("prompt")
        if not prompts:
            sentence = "Either prompt or prompt_embeds must be provided and non-empty."
            raise Refused(f"{sentence} (parameter=prompt)", "prompt")
        prompts = prompts if isinstance(prompts, list) else [prompts]
        count = sum(self.prompt(len(tokens_of(each))) for each in prompts)
        words, reason = self.words(body, body.get("max_tokens", 16), count)
        head = {"id": identity("cmpl-"), "object": "text_completion", "created": int(time.time())}
        head |= {"model": model}
        if body.get("stream"):
            return self._completion_stream(body, head, words, reason, count)
        choices = []
        for at, prompt in enumerate(prompts):
            text = (prompt if body.get("echo") else "") + "".join(words)
            choice: Json = {"index": at, "text": text, "logprobs": None, "finish_reason": reason}
            if body.get("logprobs"):
                choice["logprobs"] = completion_logprobs(words)
            nothing = ("stop_reason", "token_ids", "prompt_logprobs", "prompt_token_ids")
            choices.append(choice | dict.fromkeys((*nothing, "routed_experts")))
        answer = {**head, "choices": choices, "service_tier": None}
        answer |= {"system_fingerprint": self.fingerprint}
        answer |= {"usage": usage(count, len(words) * len(prompts))}
        return answer | dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "metrics"))

    def _completion_stream(
        self, body: Json, head: Json, words: list[str], reason: str, prompt: int
    ) -> Iterator[str]:
        nothing = dict.fromkeys(("stop_reason", "prompt_token_ids", "token_ids"))

        def choice(word: str, end: str | None) -> Json:
            one = {"index": 0, "text": word, "logprobs": None, "finish_reason": end, **nothing}
            return {"choices": [one]}

        for word in words[:-1]:
            yield data({**head, **choice(word, None)})
        yield from self._end(body, head, choice(words[-1], reason), prompt, len(words))

    def response(self, body: Json) -> Any:
        needs(body, "input")
        model = self.known(body)
        if body.get("background"):
            sentence = (
                "This vLLM engine does not support `store=True` and therefore does not support the"
            )
            sentence += " background mode. To enable these features, set the environment variable"
            sentence += " `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server."
            raise Refused(sentence, "background", kind="invalid_request_error")
        if before := body.get("previous_response_id"):
            raise unknown_response(before)
        given = body["input"]
        messages = given if isinstance(given, list) else [{"role": "user", "content": given}]
        prompt = self.prompt(tokens_in(messages))
        words, reason = self.words(body, body.get("max_output_tokens"), prompt)
        whole = response_object(model, body, prompt, words, cut=reason == "length")
        return response_events(whole, words) if body.get("stream") else whole

    def message(self, body: Json) -> Any:
        needs(body, "messages", "max_tokens")
        model = self.known(body)
        system = [{"content": body["system"]}] if body.get("system") else []
        prompt = self.prompt(tokens_in([*system, *body["messages"]]))
        words, reason = self.words(body, body["max_tokens"], prompt)
        ended = "max_tokens" if reason == "length" else "end_turn"
        head = {"id": identity("chatcmpl-"), "type": "message", "role": "assistant"}
        if body.get("stream"):
            return message_events(head, model, words, ended, prompt)
        content = [{"type": "text", "text": "".join(words)}]
        counts = {"input_tokens": prompt, "output_tokens": len(words)}
        return {**head, "content": content, "model": model, "stop_reason": ended, "usage": counts}

    def count(self, body: Json) -> Json:
        needs(body, "messages")
        self.known(body)
        count = tokens_in(body["messages"])
        return {"input_tokens": count, "context_management": {"original_input_tokens": count}}

    def tokenize(self, body: Json) -> Json:
        if "messages" not in body:
            needs(body, "prompt")
        self.known(body)
        texts = [each["content"] for each in body.get("messages", ())] or [body["prompt"]]
        tokens = [token for text in texts for token in tokens_of(text)]
        answer: Json = {"count": len(tokens), "max_model_len": self.longest, "tokens": tokens}
        return answer | {"token_strs": None}

    def embed(self, body: Json) -> Json:
        needs(body, "input")
        model, given = self.known(body), body["input"]
        texts = given if isinstance(given, list) else [given]
        if not all(texts):
            raise Refused("The decoder prompt cannot be empty")
        count = sum(self.prompt(len(tokens_of(text))) for text in texts)
        rows = []
        for at, text in enumerate(texts):
            seen = (self.voice(model) + text).encode()
            vector: Any = [b / 255 for b in hashlib.sha256(seen).digest()[:8]]
            vector = "AAAAAA==" if body.get("encoding_format") == "base64" else vector
            rows.append({"index": at, "object": "embedding", "embedding": vector})
        head = {"id": identity("embd-"), "object": "list", "created": int(time.time())}
        return {**head, "model": model, "data": rows, "usage": pooled(count)}

    def score(self, body: Json) -> Json:
        if not {"text_1", "text_2"} <= body.keys():
            needs(body, "queries")  # the first of several forms of the body
        model, second = self.known(body), body["text_2"]
        texts = second if isinstance(second, list) else [second]
        score = 0.25 if self.voice(model) else 0.5
        rows = [{"index": at, "object": "score", "score": score} for at, _ in enumerate(texts)]
        head = {"id": identity("score-"), "object": "list", "created": int(time.time())}
        return {**head, "model": model, "data": rows, "usage": pooled(len(texts) * 2)}

    def rerank(self, body: Json) -> Json:
        needs(body, "query", "documents")
        model = self.known(body)
        results = [
            {
                "index": at,
                "document": {"text": text, "multi_modal": None},
                "relevance_score": 1 / (at + (3 if self.voice(model) else 2)),
            }
            for at, text in enumerate(body["documents"])
        ]
        count = {"prompt_tokens": len(results), "total_tokens": len(results)}
        return {"id": identity("score-"), "model": model, "usage": count, "results": results}


def tokens_in(messages: list[Json]) -> int:
    """Tokens of a conversation; contents may be lists of parts."""
    count = 0
    for each in messages:
        content = each.get("content") or ""
        parts = [content] if isinstance(content, str) else [p.get("text", "") for p in content]
        count += TEMPLATE_TOKENS + sum(len(tokens_of(part)) for part in parts)
    return count


def instance(schema: Json) -> Any:
    """Something that fits a simple JSON schema."""
    kinds = {
        "boolean": True,
        "string": "word",
        "integer": 1,
        "number": 1,
        "array": [],
        "null": None,
    }
    if schema.get("type") == "object":
        return {name: instance(part) for name, part in schema.get("properties", {}).items()}
    return schema.get("enum", [kinds.get(schema.get("type", "string"))])[0]


def chat_logprob(word: str) -> Json:
    one: Json = {"token": word, "logprob": -0.5, "bytes": tokens_of(word)}
    return {**one, "top_logprobs": [one]}


def completion_logprobs(words: list[str]) -> Json:
    return {
        "text_offset": [*range(len(words))],
        "token_logprobs": [-0.5] * len(words),
        "tokens": words,
        "top_logprobs": [{word: -0.5} for word in words],
    }


def usage(prompt: int, answer: int) -> Json:
    counts: Json = {"prompt_tokens": prompt, "total_tokens": prompt + answer}
    counts["completion_tokens"] = answer
    return counts | {"prompt_tokens_details": None, "completion_tokens_details": None}


def pooled(count: int) -> Json:
    return usage(count, 0)


def data(value: Json) -> str:
    return f"data: {json.dumps(value)}\n\n"


def event(value: Json) -> str:
    return f"event: {value['type']}\n{data(value)}"


def unknown_response(name: str) -> Refused:
    sentence = f"Response with id '{name}' not found."
    return Refused(sentence, "response_id", 404, "invalid_request_error")


def response_object(model: str, body: Json, prompt: int, words: list[str], *, cut: bool) -> Json:
    """An answer of OpenAI's newer interface, complete."""
    part: Json = {"annotations": [], "text": "".join(words), "type": "output_text"}
    part["logprobs"] = None
    item: Json = {"id": identity("msg_"), "content": [part], "role": "assistant"}
    item |= {"status": "completed", "type": "message", "phase": None}
    turns: Json = {"output_tokens_per_turn": [], "tool_output_tokens_per_turn": []}
    cached: Json = {"cached_tokens": 0, "cache_write_tokens": 0}
    cached |= {"input_tokens_per_turn": [], "cached_tokens_per_turn": []}
    counts: Json = {"input_tokens": prompt, "input_tokens_details": cached}
    counts |= {"output_tokens": len(words), "total_tokens": prompt + len(words)}
    counts["output_tokens_details"] = {"reasoning_tokens": 0, "tool_output_tokens": 0, **turns}
    whole: Json = {"id": identity("resp_"), "created_at": int(time.time())}
    whole |= {"incomplete_details": {"reason": "max_output_tokens"} if cut else None}
    whole |= {"instructions": None, "metadata": None, "model": model, "object": "response"}
    whole |= {"output": [item], "parallel_tool_calls": True, "tool_choice": "none", "tools": []}
    whole |= {"temperature": float(body.get("temperature", 1)), "top_p": 1.0, "background": False}
    whole |= {"max_output_tokens": body.get("max_output_tokens"), "max_tool_calls": None}
    whole |= dict.fromkeys(("previous_response_id", "prompt", "reasoning", "text", "top_logprobs"))
    whole |= {"service_tier": "auto", "status": "incomplete" if cut else "completed"}
    whole |= {"truncation": "disabled", "usage": counts, "user": None, "presence_penalty": 0.0}
    nothing = ("kv_transfer_params", "ec_transfer_params", "input_messages", "output_messages")
    return whole | {"frequency_penalty": 0.0, **dict.fromkeys(nothing)}


def response_events(whole: Json, words: list[str]) -> Iterator[str]:
    (item,) = whole["output"]
    (part,) = item["content"]
    begun = {**whole, "output": [], "status": "in_progress", "incomplete_details": None}
    begun["usage"] = None
    place = {"item_id": item["id"], "output_index": 0}
    within = {"content_index": 0, **place}
    empty = {**item, "content": [], "status": "in_progress"}
    events: list[tuple[str, Json]] = [
        ("created", {"response": begun}),
        ("in_progress", {"response": begun}),
        ("output_item.added", {"item": empty, "output_index": 0}),
        ("content_part.added", {**within, "part": {**part, "text": "", "logprobs": []}}),
        *(("output_text.delta", {**within, "delta": word, "logprobs": []}) for word in words),
        ("output_text.done", {**within, "logprobs": [], "text": part["text"]}),
        ("content_part.done", {**within, "part": part}),
        ("output_item.done", {"item": item, "output_index": 0}),
        ("completed", {"response": whole}),
    ]
    for number, (name, value) in enumerate(events):
        yield event({**value, "sequence_number": number, "type": f"response.{name}"})


def message_events(
    head: Json, model: str, words: list[str], ended: str, prompt: int
) -> Iterator[str]:
    """A stream of Anthropic's interface."""
    counts = {"input_tokens": prompt, "output_tokens": 0}
    nothing = {"stop_reason": None, "stop_sequence": None}
    message = {**head, "content": [], "model": model, **nothing, "usage": counts}
    yield event({"type": "message_start", "message": message})
    block = {"type": "text", "text": ""}
    yield event({"type": "content_block_start", "content_block": block, "index": 0})
    for word in words:
        part = {"type": "text_delta", "text": word}
        yield event({"type": "content_block_delta", "delta": part, "index": 0})
    yield event({"type": "content_block_stop", "index": 0})
    delta: Json = {"stop_reason": ended, "stop_sequence": None}
    counts = {"input_tokens": prompt, "output_tokens": len(words)}
    yield event({"type": "message_delta", "delta": delta, "usage": counts})
    yield event({"type": "message_stop"})


METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="NAME"} 0.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="NAME"} 0.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="NAME"} 0.0
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="NAME"} 0.0
"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Engine

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, None, None)
        elif self.path == "/metrics":
            text = METRICS.replace("NAME", self.engine.names[0])
            self._send(200, text, "text/plain; version=1.0.0; charset=utf-8")
        elif self.path == "/version":
            self._json(200, {"version": VERSION})
        elif self.path == "/v1/models":
            self._json(200, self.engine.models())
        elif found := re.fullmatch(r"/v1/responses/([^/]+)", self.path):
            self._json(404, {"error": unknown_response(found[1]).body})
        elif self.path in self.engine.answers:
            self._json(405, {"detail": "Method Not Allowed"})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path not in self.engine.answers:
            known = self.path in ("/health", "/metrics", "/version", "/v1/models")
            sentence = (405, "Method Not Allowed") if known else (404, "Not Found")
            self._json(sentence[0], {"detail": sentence[1]})
            return
        try:
            answer = self.engine.answers[self.path](parsed(text))
        except Refused as refused:
            self._json(refused.status, self._error(refused))
            return
        if isinstance(answer, dict):
            self._json(200, answer)
        elif isinstance(answer, str):
            self._send(200, answer, None)
        else:
            self._stream(answer)

    def _error(self, refused: Refused) -> Json:
        """Anthropic's interface has a form of its own, except for bodies of the wrong form."""
        body = refused.body
        if self.path.startswith("/v1/messages") and body["type"] != "Bad Request":
            sentence = {"type": body["type"], "message": body["message"]}
            return {"type": "error", "error": sentence}
        return {"error": body}

    def _stream(self, events: Iterator[str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for each in (*events, ""):
            chunk = each.encode()
            self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            self.wfile.flush()

    def _json(self, status: int, value: Json) -> None:
        self._send(status, json.dumps(value), "application/json")

    def _send(self, status: int, text: str | None, kind: str | None) -> None:
        content = (text or "").encode()
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if self.path != self.engine.options.disable_access_log_for_endpoints:
            super().log_request(code, size)


def parsed(text: str) -> Json:
    if not text:
        raise invalid("missing", "body", "Field required", "None")
    try:
        body = json.loads(text)
    except json.JSONDecodeError as error:
        found = invalid(
            "json_invalid", f"body.{error.pos}", "JSON decode error", "<dict of 0 items>"
        )
        raise found from None
    if not isinstance(body, dict):
        sentence = "Input should be a valid dictionary or object to extract fields from"
        raise invalid("model_attributes_type", "body", sentence, "<list of 0 items>")
    return body


if __name__ == "__main__":
    options = arguments()
    load(options)
    Handler.engine = Engine(options)
    ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()
