"""Cost of the gateway: `python -m benchmarks.gateway [by-model]` in the root of the repository.

Requires nginx, libnginx-mod-http-perl and wrk. Everything runs on loopback; rounds of bare nginx
and gateway alternate, and the results are medians, because a machine is never idle.
"""

import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmhost.gateway.keys import digest, new_key
from tests.doubles.engine import Engine
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway, nginx

ROUNDS = 15
SECONDS = 1
STREAMS = 500
STREAM_SECONDS = 30
TOKENS = 200

# Configuration that bare nginx and gateway share, so that only the gateway's checks differ.
COMMON = """
user www-data;
worker_processes 2;
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{ worker_connections 4096; }}
http {{
    default_type application/json;
    keepalive_requests 10000;
    log_format gateway escape=json '{{"time":"$time_iso8601","id":"$connection","client":"",'
        '"address":"$remote_addr","method":"$request_method","route":"$uri","status":$status,'
        '"refusal":"","bytes_in":$request_length,"bytes_out":$bytes_sent,'
        '"first_byte_seconds":"$upstream_header_time","seconds":$request_time,'
        '"complete":"$request_completion"}}';
    access_log {place}/access.json gateway buffer=64k flush=1s;
    {servers}
}}
"""
ENGINE = """
    server {{
        listen 127.0.0.1:{port};
        access_log off;
        location / {{ return 200 '{{"object":"list"}}'; }}
    }}
"""
BARE = """
    upstream engine {{ server 127.0.0.1:{engine}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_buffering off;
        location / {{ proxy_pass http://engine; }}
    }}
"""


@contextmanager
def plain_nginx(place: Path, servers: str) -> Iterator[None]:
    """An nginx for the benchmark."""
    place.mkdir()
    (place / "nginx.conf").write_text(COMMON.format(place=place, servers=servers))
    nginx(place)
    try:
        yield
    finally:
        os.kill(int((place / "nginx.pid").read_text()), signal.SIGTERM)


CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": "What is the capital of Denmark?"},
    ],
    "max_tokens": 16,
}
"""A small request."""

POST = """
wrk.method = "POST"
wrk.body = [[{body}]]
wrk.headers["Content-Type"] = "application/json"
"""


def inventory(engine: int, keys: list[str]) -> dict[str, Any]:
    """A site with one engine and a client for each key."""
    port, status_port = free_ports(2)
    return {
        "services": ["llamacpp"],
        "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "llamacpp_port": engine,
        "gateway_port": port,
        "gateway_status_port": status_port,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "api_clients": [{"name": f"c{i}", "sha256": digest(key)} for i, key in enumerate(keys)],
    }


def two_services(engine: int, second: int, key: str) -> dict[str, Any]:
    """A site whose gateway chooses between two services by the model."""
    data = inventory(engine, [key])
    vector = {"name": "v", "service": "embeddings", "task": "embed"}
    data["models"].append({**vector, "source": "https://x/v.gguf", "sha256": "1" * 64})
    return {**data, "services": ["llamacpp", "embeddings"], "embeddings_port": second}


def wrk(url: str, key: str, script: Path | None = None) -> tuple[float, float]:
    """Requests per second, and the 99th percentile of the latency in ms."""
    command = ["wrk", "-t1", "-c32", f"-d{SECONDS}", "--latency"]
    command += ["-s", str(script)] if script else []
    command += ["-H", f"Authorization: Bearer {key}", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in said and "Socket errors" not in said, said
    rate = re.search(r"Requests/sec: +([\d.]+)", said)
    slow = re.search(r"99% +([\d.]+)(us|ms|s)", said)
    assert rate and slow, said
    return float(rate[1]), float(slow[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[slow[2]]


def throughput(place: Path) -> None:
    """Requests per second and p99, bare and through the gateway, by number of keys."""
    engine, bare = free_ports(2)
    bare_url = f"http://127.0.0.1:{bare}/v1/models"
    with (
        plain_nginx(place / "engine", ENGINE.format(port=engine)),
        plain_nginx(place / "bare", BARE.format(engine=engine, port=bare)),
    ):
        for count in (1, 100, 10_000):
            keys = [new_key() for _ in range(count)]
            with local_gateway(inventory(engine, keys), place / str(count)) as gateway:
                key, url = keys[count // 2], f"{gateway.url}/v1/models"
                rounds = [(wrk(bare_url, key), wrk(url, key)) for _ in range(ROUNDS)]
            report(f"{count:6} keys", rounds)


def routed_throughput(place: Path) -> None:
    """Small requests whose model decides where they go, and the same ones without that."""
    engine, bare = free_ports(2)
    second = free_ports(9)[-1]  # nobody listens there
    script, key = place / "chat.lua", new_key()
    script.write_text(POST.format(body=json.dumps(CHAT)))
    bare_url = f"http://127.0.0.1:{bare}/v1/chat/completions"
    with (
        plain_nginx(place / "engine-of-posts", ENGINE.format(port=engine)),
        plain_nginx(place / "bare-for-posts", BARE.format(engine=engine, port=bare)),
    ):
        sites = {"one service": inventory(engine, [key])}
        sites["by model"] = two_services(engine, second, key)
        for name, data in sites.items():
            # Both reuse connections, as bare nginx does; the engine here has no fault in that.
            with local_gateway(reusing(data), place / name.replace(" ", "-")) as gateway:
                url = f"{gateway.url}/v1/chat/completions"
                rounds = [
                    (wrk(bare_url, key, script), wrk(url, key, script)) for _ in range(ROUNDS)
                ]
            report(f"{name:>11}", rounds)


def reusing(data: dict[str, Any]) -> dict[str, Any]:
    """The same site with an engine whose connections are reused."""
    models = [{**each, "service": "ollama"} for each in data["models"] if each["name"] == "m"]
    others = [each for each in data["models"] if each["name"] != "m"]
    services = ["ollama", *data["services"][1:]]
    changed = {
        "models": models + others,
        "services": services,
        "ollama_port": data["llamacpp_port"],
    }
    return {k: v for k, v in data.items() if k != "llamacpp_port"} | changed


def report(what: str, rounds: list[tuple[tuple[float, float], tuple[float, float]]]) -> None:
    """One line of the table; the ratio is the median of the ratios of the rounds."""
    bare, gate = (statistics.median(each[side][0] for each in rounds) for side in (0, 1))
    slow_bare, slow_gate = (statistics.median(each[side][1] for each in rounds) for side in (0, 1))
    ratio = statistics.median(gate[0] / bare[0] for bare, gate in rounds)
    print(
        f"{what}: bare {bare:7.0f} requests/s, p99 {slow_bare:5.1f} ms;"
        f" gateway {gate:7.0f} requests/s, p99 {slow_gate:5.1f} ms; ratio {ratio:.2f}",
        flush=True,
    )


async def stream(port: int, key: str, chunks: int, interval: float) -> list[float]:
    """Request a stream; seconds from the request to each chunk."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = f'{{"model": "m", "stream": true, "chunks": {chunks}, "interval": {interval}}}'
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    started = time.perf_counter()
    writer.write(head.encode())
    arrivals = []
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            arrivals.append(time.perf_counter() - started)
        elif line.startswith(b"data: [DONE]"):
            break
    writer.close()
    return arrivals


def first_token(what: str, gateway: LocalGateway, engine: Engine, key: str) -> None:
    """Time to the first chunk of a stream, direct and through the gateway."""
    ports = {"direct": engine.port, "gateway": gateway.settings.gateway.port}
    seconds: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(TOKENS):
        for name, port in ports.items():
            seconds[name] += asyncio.run(stream(port, key, 1, 0))[:1]
    direct, gate = (statistics.median(seconds[name]) * 1000 for name in ports)
    print(
        f"first token, {what}: direct {direct:.2f} ms, gateway {gate:.2f} ms,"
        f" {gate - direct:+.2f} ms"
    )


def held_streams(gateway: LocalGateway, key: str, while_they_run: Callable[[], None]) -> None:
    """Open many streams at once, and count those that arrive complete."""

    async def hold() -> list[list[float]]:
        port = gateway.settings.gateway.port
        tasks = [stream(port, key, STREAM_SECONDS + 1, 1.0) for _ in range(STREAMS)]
        gathered = asyncio.gather(*tasks)
        await asyncio.get_running_loop().run_in_executor(None, while_they_run)
        return list(await gathered)

    whole = sum(len(arrivals) == STREAM_SECONDS + 1 for arrivals in asyncio.run(hold()))
    print(f"streams: {whole} of {STREAMS} whole after {STREAM_SECONDS} s with 20 reloads")


def by_model(place: Path) -> None:
    """What the choice by the model costs, in about a minute."""
    routed_throughput(place)
    key = new_key()
    with Engine(free_ports(1)[0]) as engine:
        data = two_services(engine.port, free_ports(9)[-1], key)
        with local_gateway(data, place / "first-token") as gateway:
            first_token("by model", gateway, engine, key)


def main() -> None:
    """The whole benchmark, in about five minutes; with `by-model`, only that."""
    with tempfile.TemporaryDirectory(prefix="llmhost-gateway-") as directory:
        place = Path(directory)
        place.chmod(0o755)  # nginx's workers run as another user
        by_model(place)
        if sys.argv[1:] == ["by-model"]:
            return
        throughput(place)
        key = new_key()
        with Engine(free_ports(1)[0]) as engine:
            data = inventory(engine.port, [key])
            with local_gateway(data, place / "streams") as gateway:
                first_token("one service", gateway, engine, key)

                def reload_often() -> None:
                    for _ in range(20):
                        time.sleep(1)
                        gateway.reload(data)

                held_streams(gateway, key, reload_often)


if __name__ == "__main__":
    main()
