"""`script/demo --chat`: a conversation in the terminal, through the gateway."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
from rich.console import Console

from testbed.process import MachineError

REMEMBERED = 6
"""Messages of the conversation that are sent again: a small model has a small context."""
MAX_TOKENS = 256
Message = dict[str, str]
_console = Console(highlight=False)


def chat(home: Path) -> None:
    """Answer what is typed, until the end of the input (Ctrl-D)."""
    variables = _environment(home / "env")
    url = variables["LLMHOST_URL"]
    api = httpx.Client(
        base_url=f"{url}/v1",
        headers={"Authorization": f"Bearer {variables['LLMHOST_API_KEY']}"},
        timeout=httpx.Timeout(120, connect=5),
        trust_env=False,  # no proxy reaches the demo's network, which is on this machine
    )
    with api:
        try:
            model = _checked(api.get("/models")).json()["data"][0]["id"]
            _console.print(f"[bold]{model}[/bold] at {url}. Ctrl-D ends the conversation.")
            _converse(api, model)
        except httpx.TransportError as error:
            raise MachineError(f"{url} does not answer; start the demo: script/demo") from error


def _environment(path: Path) -> dict[str, str]:
    if not path.exists():
        raise MachineError("there is no demo; create it: script/demo")
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if line)


def _converse(api: httpx.Client, model: str) -> None:
    messages: list[Message] = []
    while (question := _read()) is not None:
        if question:
            messages.append({"role": "user", "content": question})
            answer = ""
            for words in _stream(api, model, messages[1 - REMEMBERED :]):
                print(words, end="", flush=True)
                answer += words
            print("\n")
            messages.append({"role": "assistant", "content": answer})


def _read() -> str | None:
    print("> ", end="", flush=True)
    line = sys.stdin.readline()
    return line.strip() if line else None


def _stream(api: httpx.Client, model: str, messages: list[Message]) -> Iterator[str]:
    """Pieces of the answer, as they arrive."""
    body = {"model": model, "messages": messages, "stream": True, "max_tokens": MAX_TOKENS}
    with api.stream("POST", "/chat/completions", json=body) as response:
        for line in _checked(response).iter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line.removeprefix("data: ")).get("choices") or [{}]
                yield choices[0].get("delta", {}).get("content") or ""


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        response.read()
        where = f"{response.request.method} {response.request.url.path}"
        raise MachineError(f"{where} is answered with {response.status_code}: {response.text}")
    return response
