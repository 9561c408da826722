"""The clients that applications really use, through the real nginx: `openai` and `ollama`."""

import os
import ssl
import time
from collections.abc import Iterator

import ollama
import openai
import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.services import catalogue
from llmhost.services.base import AnyService, Route, Service
from testbed.local_engine import local_engine
from tests.doubles.ollama_chat import INTERVAL_SECONDS, WORDS, ollama_chat
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway
from tests.integration.test_gateway import ToyOptions

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(os.geteuid() != 0, reason="the engine's file system needs root"),
]

APP, HURRIED, CHAT_ONLY, WRONG = (new_key() for _ in range(4))
QUESTION = [{"role": "user", "content": "Hello"}]
# The model that babbles ends an answer when it likes.
TO_THE_END = {"ignore_eos": True}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    """TLS in front; llama.cpp with the tiny model at /, the double of Ollama below its name."""
    engine, double, port, status = free_ports(4)
    place = tmp_path_factory.mktemp("clients")
    data = {
        "services": ["llamacpp", "ollama-double"],
        "models": [{"name": "tiny", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "llamacpp_port": engine,
        "ollama-double_port": double,
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_ca_directory": str(place / "ca"),
        "gateway_stranger_burst": 1000,
        "api_clients": [
            {"name": "app", "sha256": digest(APP)},
            {
                "name": "hurried",
                "sha256": digest(HURRIED),
                "requests_per_minute": 60,
                "burst": 0,
            },
            {"name": "chat-only", "sha256": digest(CHAT_ONLY), "scope": ["ollama-double"]},
        ],
    }
    chat: AnyService = Service(
        "ollama-double",
        ToyOptions,
        container_port=11434,
        routes=(Route("/api/chat", ("POST",)), Route("/api/delete", ("DELETE",), scope="admin")),
    )
    with pytest.MonkeyPatch.context() as patch, ollama_chat(double):
        patch.setitem(catalogue(), chat.name, chat)
        with local_engine(place, engine), local_gateway(data, place / "nginx") as gateway:
            yield gateway


def trust(gateway: LocalGateway) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(gateway.settings.gateway.ca_certificate))


def openai_client(gateway: LocalGateway, key: str, retries: int = 0) -> openai.OpenAI:
    http = openai.DefaultHttpxClient(verify=trust(gateway))
    return openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key=key, http_client=http, max_retries=retries
    )


def ollama_client(gateway: LocalGateway, key: str) -> ollama.Client:
    return ollama.Client(
        f"{gateway.url}/ollama-double",
        headers={"Authorization": f"Bearer {key}"},
        verify=trust(gateway),
    )


def test_openai_client_streams_from_a_real_engine(gateway: LocalGateway) -> None:
    chunks = list(
        openai_client(gateway, APP).chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "Hello"}],
            stream=True,
            max_tokens=20,
            extra_body=TO_THE_END,
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(chunks) > 10 and len(text) > 3
    assert chunks[-1].choices == [] or chunks[-1].choices[0].finish_reason == "length"


def test_openai_client_lists_models_and_completes(gateway: LocalGateway) -> None:
    client = openai_client(gateway, APP)
    assert [model.id for model in client.models.list()] == ["/tiny.gguf"]
    answer = client.completions.create(
        model="tiny", prompt="Hello", max_tokens=8, extra_body=TO_THE_END
    )
    assert answer.usage and answer.usage.completion_tokens == 8


def test_openai_client_that_stops_reading_may_ask_again(gateway: LocalGateway) -> None:
    client = openai_client(gateway, APP)
    for _ in range(3):
        stream = client.completions.create(
            model="tiny", prompt="a", stream=True, max_tokens=400, extra_body=TO_THE_END
        )
        next(iter(stream))
        stream.close()


@pytest.mark.parametrize(
    ("key", "kind", "code", "sentence"),
    [
        (WRONG, openai.AuthenticationError, "key_unknown", "Unknown API key."),
        (
            CHAT_ONLY,
            openai.PermissionDeniedError,
            "scope_denied",
            "This API key may not call this route.",
        ),
    ],
    ids=["wrong key", "wrong scope"],
)
def test_refusal_is_the_openai_client_s_own_exception(
    gateway: LocalGateway,
    key: str,
    kind: type[openai.APIStatusError],
    code: str,
    sentence: str,
) -> None:
    with pytest.raises(kind) as caught:
        openai_client(gateway, key).models.list()
    assert caught.value.code == code and sentence in caught.value.message
    assert caught.value.type in ("authentication_error", "permission_error")


def test_haste_is_the_openai_client_s_own_exception(gateway: LocalGateway) -> None:
    client = openai_client(gateway, HURRIED)
    with pytest.raises(openai.RateLimitError) as caught:
        for _ in range(3):
            client.models.list()
    assert "Too many requests: retry later." in caught.value.message
    assert caught.value.response.headers["retry-after"] == "1"


def test_openai_client_that_may_retry_waits_as_it_is_told(gateway: LocalGateway) -> None:
    client = openai_client(gateway, HURRIED, retries=2)
    began = time.monotonic()
    for _ in range(3):
        assert client.models.list().data
    assert time.monotonic() - began >= 1.5


def test_route_that_is_closed_is_not_found(gateway: LocalGateway) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        openai_client(gateway, APP).files.list()
    assert "This route does not exist." in caught.value.message


def test_ollama_client_streams_word_by_word(gateway: LocalGateway) -> None:
    arrivals, words = [], []
    for part in ollama_client(gateway, APP).chat(model="tiny", messages=QUESTION, stream=True):
        arrivals.append(time.monotonic())
        words.append(part.message.content)
    assert tuple(words) == WORDS
    whole = (len(WORDS) - 1) * INTERVAL_SECONDS
    assert 0.7 * whole < arrivals[-1] - arrivals[0] < 3 * whole


def test_refusal_is_the_ollama_client_s_own_exception(gateway: LocalGateway) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        ollama_client(gateway, WRONG).chat(model="tiny", messages=QUESTION)
    assert caught.value.status_code == 401 and "Unknown API key." in str(caught.value)
    with pytest.raises(ollama.ResponseError) as caught:
        list(ollama_client(gateway, WRONG).chat(model="tiny", messages=QUESTION, stream=True))
    assert caught.value.status_code == 401 and "Unknown API key." in str(caught.value)


def test_ollama_client_can_not_delete_a_model(gateway: LocalGateway) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        ollama_client(gateway, APP).delete("tiny")
    assert caught.value.status_code == 403
    assert "This API key may not call this route." in str(caught.value)


def test_haste_is_the_ollama_client_s_own_exception(gateway: LocalGateway) -> None:
    time.sleep(1)  # what the tests before have used up
    client = ollama_client(gateway, HURRIED)
    with pytest.raises(ollama.ResponseError) as caught:
        for _ in range(3):
            next(iter(client.chat(model="tiny", messages=QUESTION, stream=True)))
    assert caught.value.status_code == 429
    assert "Too many requests: retry later." in str(caught.value)
