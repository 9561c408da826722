"""The command line, a client of the server."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.doubles.ollama.refusal import Json
from tests.doubles.ollama.server import HOST, PORT, serve


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
