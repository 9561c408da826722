"""Usage from the real nginx's log: every request is counted once, across rotation and reload."""

import gzip
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.resources import FILES
from llmhost.status.usage import By, UsageRow, report
from tests.doubles.engine import Engine
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway, nginx

pytestmark = pytest.mark.machines
KEYS = {"app": new_key(), "batch": new_key()}
ROUNDS = 60


def inventory(engine: Engine) -> dict[str, Any]:
    port, status = free_ports(2)
    return {
        "services": ["llamacpp"],
        "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "llamacpp_port": engine.port,
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "gateway_stranger_burst": 1000,
        "api_clients": [{"name": name, "sha256": digest(key)} for name, key in KEYS.items()],
    }


def send(gateway: LocalGateway, client: httpx.Client) -> None:
    """Five requests: answered, a stream, the engine's error, refused, and a stream given up."""
    app, batch = ({"Authorization": f"Bearer {key}"} for key in KEYS.values())
    url = f"{gateway.url}/v1/completions"
    assert client.post(url, headers=app, json={}).status_code == 200
    stream = {"stream": True, "chunks": 3}
    assert client.post(url, headers=batch, json=stream).text.count("data:") >= 3
    assert client.post(url, headers=batch, json={"status": 400}).status_code == 400
    assert client.post(url, json={}).status_code == 401
    endless = {"stream": True, "chunks": 1000, "interval": 0.05}
    with client.stream("POST", url, headers=app, json=endless) as answer:
        next(answer.iter_raw())


def usage(gateway: LocalGateway) -> dict[str, UsageRow]:
    log = str(gateway.directory / "logs/gateway.json")
    command = [sys.executable, "-I", str(FILES / "usage/read.py"), log, "3600"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {row.name: row for row in report({"here": output}, {}, By.CLIENT).rows}


def test_every_request_is_counted_once_across_rotation_and_reload(tmp_path: Path) -> None:
    # nginx closes idle connections when it reloads, perhaps while a request is on its way.
    limits = httpx.Limits(max_keepalive_connections=0)
    with Engine(free_ports(1)[0]) as engine, httpx.Client(timeout=30, limits=limits) as client:
        data = inventory(engine)
        with local_gateway(data, tmp_path / "nginx") as gateway:
            log = gateway.directory / "logs/gateway.json"
            for turn in range(ROUNDS):
                if turn == ROUNDS // 3:  # as logrotate: twice, so that the first is compressed
                    log.rename(log.with_name("gateway.json.1"))
                    nginx(gateway.directory, "-s", "reopen")
                if turn == ROUNDS // 2:
                    gateway.reload(data)
                send(gateway, client)
            first = log.with_name("gateway.json.1")
            log.with_name("gateway.json.2.gz").write_bytes(gzip.compress(first.read_bytes()))
            first.unlink()
            found = usage(gateway)
            for _ in range(200):  # the log is written within a second
                if sum(row.requests for row in found.values()) >= 5 * ROUNDS:
                    break
                time.sleep(0.05)
                found = usage(gateway)
            lines = log.read_text().splitlines()
        counted = {
            name: (row.requests, row.errors, row.refused, row.aborted)
            for name, row in found.items()
        }
        assert counted == {
            "app": (2 * ROUNDS, 0, 0, ROUNDS),
            "batch": (2 * ROUNDS, ROUNDS, 0, 0),
            "": (ROUNDS, 0, ROUNDS, 0),
        }
        assert Counter(request.target for request in engine.requests) == {
            "/v1/completions": 4 * ROUNDS
        }
        assert found["app"].bytes_in > 0 < found["batch"].bytes_out
        assert json.loads(lines[-1])["client"] in {"app", "batch", ""}
