"""`llmhost bench` measures a real llama.cpp through the real gateway."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from llmhost.gateway.keys import digest, new_key
from testbed.local_engine import local_engine
from tests.integration.local_gateway import free_ports, local_gateway
from tests.integration.test_tokens import engine_s_own

pytestmark = pytest.mark.machines
LLMHOST = Path(sys.executable).with_name("llmhost")


def test_tokens_are_the_engine_s_own_and_two_runs_are_compared(tmp_path: Path) -> None:
    port, gateway_port, status_port = free_ports(3)
    key = new_key()
    (tmp_path / "key").write_text(key)
    data = {
        "services": ["llamacpp"],
        "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "llamacpp_port": port,
        "gateway_port": gateway_port,
        "gateway_status_port": status_port,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "api_clients": [{"name": "bench", "sha256": digest(key), "concurrent_streams": 3}],
    }
    (tmp_path / "site.py").write_text(f"hosts = [('llm-1', {data!r})]\n")
    (tmp_path / "engine").mkdir()
    options = ["--metrics", "--parallel", "4", "-c", "2048", "--alias", "m"]
    with (
        local_engine(tmp_path / "engine", port, options=options) as url,
        local_gateway(data, tmp_path / "nginx") as gateway,
    ):

        def bench(*words: str) -> "subprocess.CompletedProcess[str]":
            command = [str(LLMHOST), "bench", str(tmp_path / "site.py"), "llm-1"]
            command += ["--key", f"file:{tmp_path}/key", "--url", gateway.url, "--words", "10"]
            command += ["--tokens", "12", "--rounds", "4", *words]
            return subprocess.run(command, capture_output=True, text=True, timeout=120)

        ran = bench("--concurrency", "1,3", "--json")
        assert ran.returncode == 0, ran.stderr
        (tmp_path / "before.json").write_text(ran.stdout)
        levels = json.loads(ran.stdout)["levels"]
        assert [(each["concurrency"], each["requests"]) for each in levels] == [(1, 4), (3, 12)]
        tokens = sum(each["tokens"] for each in levels)
        warm_up = engine_s_own(url)[1] - tokens
        assert 0 < warm_up <= 12  # of one request
        assert all(each["first_token_p50_seconds"] > 0 for each in levels)

        drawn = ["--plot", str(tmp_path / "bench.png")]
        ran = bench("--concurrency", "1", "--compare", str(tmp_path / "before.json"), *drawn)
        assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
        assert ran.returncode == 0 and "%" in ran.stdout and "changes since" in ran.stdout

        # The limit of the client is a result, and not a crash.
        ran = bench("--concurrency", "8", "--tokens", "200")
        assert ran.returncode == 1 and "× 429 too_many_requests" in ran.stderr
        assert httpx.get(f"{url}/health").status_code == 200
