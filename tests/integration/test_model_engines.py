"""One address for two real engines: OpenAI's client, the real nginx, two llama.cpp servers."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from llmhost.gateway.keys import digest, new_key
from testbed.local_engine import local_engine
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway

pytestmark = pytest.mark.machines
KEY = new_key()
CONTEXTS = {"brain": 512, "search": 1024}


@dataclass(frozen=True)
class Served:
    """The gateway, and the URL of each engine by its model."""

    gateway: LocalGateway
    engines: dict[str, str]

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key=KEY, max_retries=2)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    first, second, port, status = free_ports(4)
    places = {"brain": first, "search": second}
    models = [
        {"name": name, "source": "https://x/m", "sha256": "1" * 64, "context_tokens": size}
        for name, size in CONTEXTS.items()
    ]
    models[1]["service"] = "ollama"
    data: dict[str, Any] = {
        # The second engine is llama.cpp, too; it is declared as another service for its address.
        "services": ["llamacpp", "ollama"],
        "models": models,
        "llamacpp_port": first,
        "ollama_port": second,
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "gateway_fallbacks": {"brain": ["search"]},
        "gateway_count_tokens": True,
        "api_clients": [{"name": "app", "sha256": digest(KEY), "tokens_per_day": 10**9}],
    }
    with contextlib.ExitStack() as stack:
        engines = {
            name: stack.enter_context(
                local_engine(
                    tmp_path_factory.mktemp(name),
                    each,
                    options=["--metrics", "-c", str(CONTEXTS[name])],
                )
            )
            for name, each in places.items()
        }
        place = tmp_path_factory.mktemp("engines") / "nginx"
        yield Served(stack.enter_context(local_gateway(data, place)), engines)


def ask(client: openai.OpenAI, model: str) -> str:
    answer = client.completions.create(
        model=model, prompt="One, two,", max_tokens=12, temperature=0, seed=1
    )
    return answer.choices[0].text


def test_client_of_openai_uses_both_models(served: Served) -> None:
    assert [each.id for each in served.client.models.list().data] == ["brain", "search"]
    for name, url in served.engines.items():
        direct = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        assert ask(served.client, name) == ask(direct, name)
        trace = f"from-{name}"
        stream = served.client.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": "Hi"}],
            max_tokens=8,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"X-Request-ID": trace},
        )
        chunks = [*stream]
        assert len([chunk for chunk in chunks if chunk.choices]) > 2
        (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
        service = "llamacpp" if name == "brain" else "ollama"
        line = served.gateway.logged(trace)
        assert line["variant"] == f"{name}/{service}"
        assert int(line["tokens_out"]) == usage.completion_tokens
        assert int(line["day_tokens"]) > usage.completion_tokens > 0


def written(served: Served) -> dict[str, int]:
    """Tokens that each engine has written, by its own account."""
    texts = {name: httpx.get(f"{url}/metrics").text for name, url in served.engines.items()}
    pattern = r"(?m)^llamacpp:tokens_predicted_total (\S+)$"
    return {name: int(float(re.findall(pattern, text)[0])) for name, text in texts.items()}


def test_each_engine_gets_only_requests_for_its_model(served: Served) -> None:
    for name in served.engines:
        before = written(served)
        ask(served.client, name)
        after = written(served)
        assert [each for each in after if after[each] > before[each]] == [name]


def test_unknown_model_raises_what_openai_s_client_raises(served: Served) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(served.client, "gpt-4o")
    assert caught.value.code == "model_not_found"
    assert caught.value.type == "invalid_request_error"


def form(**parts: str) -> bytes:
    """A body whose parts llama.cpp makes one object of, if the header says that it is a form."""
    lines = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in parts.items()
    ]
    return ("".join(lines) + "--x--\r\n").encode()


def test_engine_reads_no_form(served: Served) -> None:
    """The gateway finds the model of the last part, and llama.cpp the first part."""
    body = form(model="search", prompt="One", hidden='{"model":"brain"}')
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    url = served.engines["brain"]
    assert "choices" in httpx.post(f"{url}/v1/completions", content=body, headers=headers).json()
    headers["Authorization"] = f"Bearer {KEY}"
    answer = httpx.post(f"{served.gateway.url}/v1/completions", content=body, headers=headers)
    assert (answer.status_code, "parse error" in answer.text) == (400, True)


def test_client_does_not_end_the_stream_of_another(served: Served) -> None:
    """llama.cpp keeps one stream for each of these names."""
    more: dict[str, Any] = {"extra_headers": {"X-Conversation-Id": "same"}, "temperature": 0}
    more["extra_body"] = {"ignore_eos": True}
    words: list[str] = []
    for chunk in served.client.completions.create(
        model="search", prompt="One", max_tokens=200, stream=True, **more
    ):
        words += [choice.text for choice in chunk.choices if not choice.finish_reason]
        if len(words) == 3:
            served.client.completions.create(model="search", prompt="Two", max_tokens=1, **more)
    assert len(words) >= 190
