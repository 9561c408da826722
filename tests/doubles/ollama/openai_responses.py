"""OpenAI's Responses (openai/responses.go)."""

import time

from tests.doubles.ollama.answers import Said, Stream, Text, event_stream, line, number
from tests.doubles.ollama.openai import speak
from tests.doubles.ollama.refusal import JSON, Json


def responses(body: Json) -> object:
    said = speak(body, str(body.get("input")))
    now, item = int(time.time()), number("msg_")
    content = [{"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}]
    message = {"id": item, "type": "message", "status": "completed", "role": "assistant"}
    usage = said.usage()
    payload: Json = {
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
    payload |= dict.fromkeys(absent.split())
    return _response_events(payload, said) if body.get("stream") else Text(line(payload), kind=JSON)


def _response_events(payload: Json, said: Said) -> Stream:
    (message,) = payload["output"]
    begun = payload | {"status": "in_progress", "output": [], "usage": None, "completed_at": None}
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
        ("response.completed", {"response": payload}),
    ]
    return event_stream([(n, d | {"sequence_number": i}) for i, (n, d) in enumerate(events)])
