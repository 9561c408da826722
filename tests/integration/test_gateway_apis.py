"""Clients of OpenAI's and Anthropic's newer interfaces, through the real nginx: to the real
llama.cpp, and to the doubles of vLLM and Ollama, which answer as those engines were recorded."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from llmhost.gateway.keys import digest, new_key
from testbed.local_engine import local_engine
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway
from tests.unit.ollama_store import bake, model, served
from tests.unit.vllm_site import double

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(os.geteuid() != 0, reason="the engine's file system needs root"),
]

APP = new_key()
SERVICES = {"llamacpp": "tiny", "vllm": "writer", "ollama": "router"}
"""The model of each; the first is at the gateway's `/`."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    place = tmp_path_factory.mktemp("apis")
    store = bake([model(place, "router")], place)
    (engine,) = free_ports(1)
    with (
        local_engine(tmp_path_factory.mktemp("llamacpp"), engine) as llamacpp,
        double(place, "generate") as vllm,
        served(store) as ollama,
    ):
        urls = {"llamacpp": llamacpp, "vllm": vllm, "ollama": str(ollama.base_url)}
        with local_gateway(_inventory(place, urls), place / "nginx") as gateway:
            yield gateway


def _inventory(place: Path, urls: dict[str, str]) -> dict[str, object]:
    port, status = free_ports(2)
    pins = {"source": "https://x/m.gguf", "sha256": "1" * 64}
    files = {"source": "hf:a/b", "revision": "1" * 40, "files": [{"path": "c", "sha256": "1" * 64}]}
    return {
        "services": [*SERVICES],
        "models": [
            {"name": name, "service": service, **(files if service == "vllm" else pins)}
            for service, name in SERVICES.items()
        ],
        **{f"{service}_port": httpx.URL(url).port for service, url in urls.items()},
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_ca_directory": str(place / "ca"),
        "gateway_stranger_burst": 1000,
        "api_clients": [{"name": "app", "sha256": digest(APP)}],
    }


def url_of(gateway: LocalGateway, service: str) -> str:
    return gateway.url if service == "llamacpp" else f"{gateway.url}/{service}"


def trust(gateway: LocalGateway) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(gateway.settings.gateway.ca_certificate))


def openai_client(gateway: LocalGateway, service: str) -> openai.OpenAI:
    http = openai.DefaultHttpxClient(verify=trust(gateway))
    url = f"{url_of(gateway, service)}/v1"
    return openai.OpenAI(base_url=url, api_key=APP, http_client=http, max_retries=0)


def anthropic_client(gateway: LocalGateway, service: str) -> anthropic.Anthropic:
    http = anthropic.DefaultHttpxClient(verify=trust(gateway))
    url = url_of(gateway, service)
    return anthropic.Anthropic(base_url=url, api_key=APP, http_client=http, max_retries=0)


@pytest.mark.parametrize("service", SERVICES)
def test_openai_client_streams_a_response(gateway: LocalGateway, service: str) -> None:
    stream = openai_client(gateway, service).responses.create(
        model=SERVICES[service], input="Hello", max_output_tokens=8, stream=True
    )
    events = list(stream)
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert "response.output_text.delta" in kinds


@pytest.mark.parametrize("service", SERVICES)
def test_anthropic_client_streams_a_message(gateway: LocalGateway, service: str) -> None:
    with anthropic_client(gateway, service).messages.stream(
        model=SERVICES[service], max_tokens=8, messages=[{"role": "user", "content": "Hello"}]
    ) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text and message.usage.output_tokens and message.stop_reason


@pytest.mark.parametrize("service", ["llamacpp", "vllm"])
def test_anthropic_client_counts_tokens(gateway: LocalGateway, service: str) -> None:
    count = anthropic_client(gateway, service).messages.count_tokens(
        model=SERVICES[service], messages=[{"role": "user", "content": "Hello"}]
    )
    assert count.input_tokens > 5


def test_unknown_model_is_the_anthropic_client_s_own_exception(gateway: LocalGateway) -> None:
    with pytest.raises(anthropic.NotFoundError):
        anthropic_client(gateway, "vllm").messages.create(
            model="nope", max_tokens=1, messages=[{"role": "user", "content": "Hello"}]
        )


@pytest.mark.parametrize(
    ("service", "method", "path"),
    [
        ("vllm", "POST", "/v1/load_lora_adapter"),
        ("vllm", "POST", "/pause"),
        ("vllm", "POST", "/update_weights"),
        ("vllm", "POST", "/collective_rpc"),
        ("vllm", "GET", "/v1/responses/resp_1"),
        ("vllm", "POST", "/v1/responses/resp_1/cancel"),
        ("vllm", "GET", "/metrics"),
        ("llamacpp", "GET", "/slots"),
        ("llamacpp", "POST", "/slots/0?action=erase"),
        ("llamacpp", "POST", "/lora-adapters"),
        ("llamacpp", "POST", "/models/unload"),
        ("llamacpp", "GET", "/props"),
        ("ollama", "POST", "/api/pull"),
        ("ollama", "DELETE", "/api/delete"),
    ],
)
def test_dangerous_request_does_not_pass(
    gateway: LocalGateway, service: str, method: str, path: str
) -> None:
    with httpx.Client(verify=trust(gateway)) as client:
        answer = client.request(
            method,
            url_of(gateway, service) + path,
            headers={"Authorization": f"Bearer {APP}"},
            json={} if method == "POST" else None,
        )
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "route_unknown")
