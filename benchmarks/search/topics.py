"""Generated documents about topics, and their vectors, which cost next to nothing to compute.

As a program: `uvicorn benchmarks.search.topics:app`, an embedding model with OpenAI's interface.
"""

import random
import re
import zlib
from typing import Any

import numpy as np
import orjson

TOPIC_SIZE = 20
LENGTH = 384
_COMMON = [f"word{number}" for number in range(2000)]
_TOPIC = re.compile(r"\bt(\d+)w")


def documents(count: int) -> list[dict[str, Any]]:
    """Texts of forty words: eight of the twelve words of its topic, and common ones."""
    chance = random.Random(1)
    return [
        {"id": str(number), "text": _text(chance, number // TOPIC_SIZE, 8, 32)}
        for number in range(count)
    ]


def questions(count: int, documents_: int) -> list[str]:
    """Questions of six words, four of them of a topic."""
    chance, topics = random.Random(2), max(1, documents_ // TOPIC_SIZE)
    return [_text(chance, chance.randrange(topics), 4, 2) for _ in range(count)]


def _text(chance: random.Random, topic: int, own: int, common: int) -> str:
    words = chance.sample([f"t{topic}w{number}" for number in range(12)], own)
    words += chance.choices(_COMMON, k=common)
    chance.shuffle(words)
    return " ".join(words)


def embed(text: str) -> Any:
    """A direction for the topic, and as much noise."""
    topic = _TOPIC.search(text)
    vector = _direction(int(topic[1]) if topic else 0) + _direction(zlib.crc32(text.encode()))
    return vector / np.linalg.norm(vector)


def _direction(seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(LENGTH, np.float32)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    texts = orjson.loads(body)["input"] if body else []
    data = [{"index": n, "embedding": embed(text)} for n, text in enumerate(texts)]
    answer = orjson.dumps({"data": data}, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
