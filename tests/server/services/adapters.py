"""Whether an adapter changes what its model answers.

An engine may load an adapter and ignore its tensors; it then serves the base under another name.
Texts alone do not show an adapter that changes little, so probabilities are compared, too.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Any

import pytest

from llmhost.checks.services.api import Api

PROMPTS = ("Seventeen herons asked the clerk for", "Uhren aus Quarz: 4, 8,")
"""So rare that no other request begins with them, and shorter than what vLLM caches (16 tokens)."""

_TOKENS, _TEXT_TOKENS = 4, 16
_LIKELIEST = 5
_ROUNDING = 1e-5
"""Differences of an engine that computes the same in another order."""

_DOCUMENTS = ("Herons eat fish.", "A clerk works in an office.")


@dataclass(frozen=True)
class Answer:
    """Tokens and the logarithms of probabilities, or the numbers of a vector or of scores."""

    tokens: tuple[str, ...]
    numbers: tuple[float, ...]


Ask = Callable[[str], Answer]
"""Asks a model with a prompt, without chance."""


def distance(one: Answer, other: Answer) -> float:
    """The largest difference of two numbers at the same place."""
    if one.tokens != other.tokens or len(one.numbers) != len(other.numbers):
        return inf
    pairs = zip(one.numbers, other.numbers, strict=True)
    return max((abs(a - b) for a, b in pairs), default=0.0)


def changes_answers(base: Ask, adapted: Ask) -> bool:
    """Whether the answers of both differ by more than the base's own differ from each other.

    These may differ while an engine computes other requests in the same batch.
    """
    noise, unsteady = _ROUNDING, 0
    for prompt in PROMPTS:
        first, again, other = base(prompt), base(prompt), adapted(prompt)
        own = distance(first, again)
        if own == inf:
            unsteady += 1
            continue
        noise = max(noise, own)
        if min(distance(first, other), distance(again, other)) > noise:
            return True
    if unsteady == len(PROMPTS):
        pytest.skip("not checked: the base answers the same question in different ways")
    return False


def without_effect(name: str, base: str) -> str:
    """The sentence for an adapter that changes nothing; `base` is a name, or what it is."""
    return f"'{name}' answers exactly like {base}: its adapter has no effect"


def _in_order(likeliest: Iterable[Iterable[float]]) -> tuple[float, ...]:
    """Those of each token by size: two that are as likely may come in any order."""
    return tuple(number for each in likeliest for number in sorted(each))


def vllm_changes_answers(api: Api, task: str, base: str, adapter: str) -> bool:
    """The same for a model of vLLM and one of its adapters.

    Probabilities are asked for only if all texts are equal: at the first such request, vLLM
    compiles a program, and all others wait (vllm/v1/sample/ops/logprobs.py).
    """
    for likeliest in (0, _LIKELIEST) if task == "generate" else (0,):
        both = (vllm(api, task, name, likeliest) for name in (base, adapter))
        if changes_answers(*both):
            return True
    return False


def vllm(api: Api, task: str, name: str, likeliest: int) -> Ask:
    """A model of vLLM, or one of its adapters, with so many probabilities for each token (vllm/
    entrypoints/openai/completion and pooling)."""

    def generate(prompt: str) -> Answer:
        body: dict[str, Any] = {"model": name, "prompt": prompt, "temperature": 0, "seed": 1}
        body |= {"max_tokens": _TOKENS} if likeliest else {"max_tokens": _TEXT_TOKENS}
        body |= {"logprobs": likeliest} if likeliest else {}
        (choice,) = api.ask("/v1/completions", body)["choices"]
        tops = (each.values() for each in (choice["logprobs"] or {}).get("top_logprobs", ()))
        return Answer((choice["text"],), _in_order(tops))

    def embed(prompt: str) -> Answer:
        answer = api.ask("/v1/embeddings", {"model": name, "input": prompt})
        return Answer((), tuple(answer["data"][0]["embedding"]))

    def rerank(prompt: str) -> Answer:
        body = {"model": name, "query": prompt, "documents": _DOCUMENTS}
        results = sorted(api.ask("/v1/rerank", body)["results"], key=lambda each: each["index"])
        return Answer((), tuple(each["relevance_score"] for each in results))

    return {"generate": generate, "embed": embed, "rerank": rerank}[task]


def llama(api: Api, name: str = "", *, adapted: bool) -> Ask:
    """llama.cpp's server, whose requests may set the scale of each adapter (tools/server/README.md,
    `lora`); one that is not listed gets 0.

    It may reuse what it has computed for the beginning of another prompt, even if that had other
    adapters (ggml-org/llama.cpp issues 26207, 30129). These prompts are therefore not cached, and
    lack the token with which those of clients begin. A router needs the name of the model.
    """
    of_model = {"model": name} if name else {}
    given: dict[str, Any] = {} if adapted else {"lora": [{"id": 0, "scale": 0}]}
    given |= of_model | {"n_predict": _TOKENS, "temperature": 0, "seed": 1, "n_probs": _LIKELIEST}
    given |= {"cache_prompt": False, "id_slot": 0}

    def ask(prompt: str) -> Answer:
        text = {"content": prompt, "add_special": False}
        tokens = api.ask("/tokenize", {**of_model, **text})["tokens"]
        found = api.ask("/completion", {**given, "prompt": tokens})["completion_probabilities"]
        likeliest = ((top["logprob"] for top in each["top_logprobs"]) for each in found)
        return Answer(tuple(each["token"] for each in found), _in_order(likeliest))

    return ask
