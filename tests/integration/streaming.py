"""Clients that stream from a gateway while something changes, and count what they got."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from testbed import Client
from tests.programs import running

# Streams until its standard input ends; prints what came whole, and how each other request failed.
# Before nginx 1.27.4, a reload closes idle connections even if a request is on its way. Like every
# HTTP client, this one then sends it again, if not a byte of an answer has come.
_LOAD = """
import asyncio, json, sys, time, httpx
url, key, streams, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
whole, failures, resent, longest, ended = 0, [], 0, 0.0, asyncio.Event()
CLOSED = "Server disconnected without sending a response."

async def stream(client):
    body = {"model": "any", "prompt": "Hi", "stream": True, "max_tokens": tokens,
            "ignore_eos": True}
    last, reason, events = "", None, 0
    async with client.stream("POST", url, json=body) as answer:
        async for line in answer.aiter_lines():
            if answer.status_code != 200:
                return f"{answer.status_code} {line}"
            if line.startswith("data: ") and line != "data: [DONE]":
                events += 1
                reason = json.loads(line[6:])["choices"][0]["finish_reason"] or reason
            last = line or last
    if last != "data: [DONE]" or reason != "length":
        return f"cut after {events} events: {last[:200]}"
    return ""

async def work(client):
    global whole, resent, longest
    while not ended.is_set():
        begun = time.monotonic()
        try:
            failure = await stream(client)
        except httpx.HTTPError as error:
            if str(error) == CLOSED and time.monotonic() - begun < 1:
                resent += 1
                continue
            failure = f"{type(error).__name__}: {error}"
        longest = max(longest, time.monotonic() - begun)
        if failure:
            failures.append(failure)
            await asyncio.sleep(0.2)
        else:
            whole += 1

async def main():
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(headers=headers, timeout=120) as client:
        workers = [asyncio.create_task(work(client)) for _ in range(streams)]
        await asyncio.to_thread(sys.stdin.read)
        ended.set()
        await asyncio.gather(*workers)

asyncio.run(main())
found = {"whole": whole, "failures": failures, "resent": resent, "longest_seconds": longest}
print(json.dumps(found))
"""


@contextmanager
def streaming(
    client: Client, url: str, key: str, streams: int = 4, tokens: int = 400
) -> Iterator[dict[str, Any]]:
    """Stream during the block; the count is there after it."""
    program = [sys.executable, "-c", _LOAD, f"{url}/v1/completions", key]
    command = client.command([*program, str(streams), str(tokens)])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    count: dict[str, Any] = {}
    with running(command, text=True, **pipes) as process:
        yield count
        said, _ = process.communicate(timeout=180)
        count.update(json.loads(said))


def assert_unnoticed(count: dict[str, Any]) -> None:
    """Every stream came whole."""
    assert count["failures"] == [] and count["whole"] > 20 and count["resent"] < 4, count
