"""The interface of Anthropic (anthropic/anthropic.go)."""

from tests.doubles.ollama.answers import Text, event_stream, line, number
from tests.doubles.ollama.openai import speak
from tests.doubles.ollama.refusal import JSON, Json


def messages(body: Json) -> object:
    said = speak(body, str(body.get("messages")))
    usage = {"input_tokens": said.prompt_tokens, "output_tokens": len(said.words)}
    reason = {"length": "max_tokens", "stop": "end_turn"}[said.reason]
    head = {"id": number("msg_"), "type": "message", "role": "assistant", "model": body["model"]}
    if not body.get("stream"):
        content = [{"type": "text", "text": said.text}]
        payload = head | {"content": content, "stop_reason": reason, "usage": usage}
        return Text(line(payload), kind=JSON)
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
    return event_stream(events)
