"""One address for all models: the real nginx sends a request where its model is.

The engines are doubles; tests/integration/test_model_engines.py has real ones.
"""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from llmhost.gateway.keys import digest, new_key
from testbed.process import wait_until
from tests.doubles.engine import Engine
from tests.integration.local_gateway import LocalGateway, free_ports, leave, local_gateway

pytestmark = pytest.mark.machines

APP, ONLY_VECTOR, ONLY_SERVICE, BOTH = (new_key() for _ in range(4))
Data = dict[str, Any]
CHAT = "/v1/chat/completions"


def model(name: str, service: str, **more: object) -> Data:
    return {"name": name, "service": service, "source": "https://x/m", "sha256": "1" * 64, **more}


def inventory(brain: int, vector: int, **more: object) -> Data:
    port, status = free_ports(2)
    return {
        "services": ["llamacpp", "embeddings"],
        "models": [
            model("brain", "llamacpp", context_tokens=8192),
            model("vector", "embeddings", task="embed", context_tokens=512),
        ],
        "llamacpp_port": brain,
        "embeddings_port": vector,
        "gateway_port": port,
        "gateway_status_port": status,
        "gateway_addresses": ["127.0.0.1"],
        "gateway_tls": "off",
        "api_clients": [
            {"name": "app", "sha256": digest(APP)},
            {"name": "only-vector", "sha256": digest(ONLY_VECTOR), "scope": ["vector"]},
            {"name": "only-service", "sha256": digest(ONLY_SERVICE), "scope": ["embeddings"]},
            {"name": "both", "sha256": digest(BOTH), "scope": ["llamacpp", "vector"]},
        ],
        **more,
    }


@pytest.fixture(scope="module")
def brain() -> Iterator[Engine]:
    with Engine(free_ports(1)[0]) as running:
        yield running


@pytest.fixture(scope="module")
def vector(brain: Engine) -> Iterator[Engine]:
    with Engine(free_ports(1)[0]) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    brain: Engine, vector: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalGateway]:
    data = inventory(brain.port, vector.port)
    with local_gateway(data, tmp_path_factory.mktemp("models") / "nginx") as running:
        yield running


def post(
    gateway: LocalGateway, path: str, body: bytes | Data, key: str = APP, **headers: str
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
    return httpx.post(f"{gateway.url}{path}", content=content, headers=sent, timeout=60)


def client(gateway: LocalGateway, key: str = APP) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)


def test_model_decides_which_engine_answers(
    gateway: LocalGateway, brain: Engine, vector: Engine
) -> None:
    for name, engine in (("brain", brain), ("vector", vector)):
        before = len(engine.requests)
        body = {"input": "Hi", "model": name}
        assert post(gateway, "/v1/embeddings", body).json()["target"] == "/v1/embeddings"
        [request] = engine.requests[before:]
        assert request.options == body
        assert "authorization" not in request.headers


def test_streams_arrive_as_the_engine_writes_them(gateway: LocalGateway) -> None:
    body = {"model": "brain", "stream": True, "chunks": 4, "interval": 0.2}
    headers = {"Authorization": f"Bearer {APP}"}
    with httpx.stream("POST", f"{gateway.url}{CHAT}", json=body, headers=headers) as answer:
        arrivals = [time.monotonic() for line in answer.iter_lines() if line.startswith("data: {")]
    assert len(arrivals) == 4 and arrivals[-1] - arrivals[0] > 0.4


def test_client_sees_its_models_with_task_and_context(gateway: LocalGateway) -> None:
    expected = {APP: ["brain", "vector"], ONLY_VECTOR: ["vector"], ONLY_SERVICE: ["vector"]}
    for key, names in {**expected, BOTH: ["brain", "vector"]}.items():
        found = client(gateway, key).models.list().data
        assert [each.id for each in found] == names
        assert {each.object for each in found} == {"model"}
    one = client(gateway).models.retrieve("brain")
    more = one.model_extra or {}
    assert (one.id, more["task"], more["context_length"]) == ("brain", "generate", 8192)


@pytest.mark.parametrize("key", [APP, ONLY_VECTOR], ids=["unknown", "not allowed"])
def test_model_that_a_client_has_not_is_openai_s_own_error(
    gateway: LocalGateway, brain: Engine, vector: Engine, key: str
) -> None:
    """As api.openai.com answers, to a request and to a look-up."""
    name = "gpt-4o" if key == APP else "brain"
    before = len(brain.requests) + len(vector.requests)
    with pytest.raises(openai.NotFoundError) as asked:
        client(gateway, key).embeddings.create(model=name, input="Hi")
    assert asked.value.body == {
        "message": f"The model `{name}` does not exist or you do not have access to it.",
        "type": "invalid_request_error",
        "param": None,
        "code": "model_not_found",
    }
    with pytest.raises(openai.NotFoundError) as looked_up:
        client(gateway, key).models.retrieve(name)
    assert (looked_up.value.code, looked_up.value.param) == ("model_not_found", "model")
    assert len(brain.requests) + len(vector.requests) == before


@pytest.mark.parametrize("name", ["BRAIN", "brain\n", "bra", "brain ", "x" * 300, "\u00fc", '"}'])
def test_model_of_another_spelling_does_not_exist(gateway: LocalGateway, name: str) -> None:
    answer = post(gateway, CHAT, {"model": name})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_card_has_the_name_as_it_is_declared(gateway: LocalGateway) -> None:
    with pytest.raises(openai.NotFoundError):
        client(gateway).models.retrieve("BRAIN")


def test_list_is_longer_than_a_parameter_of_nginx(
    brain: Engine, vector: Engine, tmp_path: Path
) -> None:
    names = [f"a-model-with-a-long-name-{number}" for number in range(100)]
    models = [model("brain", "llamacpp")]
    models += [model(name, "embeddings", task="embed") for name in names]
    clients = [
        {"name": "app", "sha256": digest(APP)},
        {"name": "only", "sha256": digest(ONLY_VECTOR), "scope": names[:60]},
    ]
    data = inventory(brain.port, vector.port, models=models, api_clients=clients)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        for key, expected in ((APP, ["brain", *names]), (ONLY_VECTOR, names[:60])):
            assert [each.id for each in client(gateway, key).models.list().data] == expected


def test_model_is_not_offered_where_its_engine_does_not_answer(gateway: LocalGateway) -> None:
    answer = post(gateway, CHAT, {"model": "vector"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_lacks_route")
    # This client has no model that answers there.
    answer = post(gateway, CHAT, {"model": "vector"}, ONLY_VECTOR)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope_denied")


UNCLEAR = {
    "twice": b'{"model":"vector","model":"brain"}',
    "twice, far apart": b'{"model":"vector","x":"' + b"y" * 900_000 + b'","model":"brain"}',
    "another case": b'{"model":"vector","Model":"brain"}',
    "escaped": rb'{"model":"vector","mod\u0065l":"brain"}',
    "escaped, in a large body": rb'{"model":"vector","mod\u0065l":"brain","x":"'
    + b"y" * 900_000
    + b'"}',
    "UTF-16": '{"model":"vector"}'.encode("utf-16-le"),
    "two bodies": b'{"model":"vector"}{"model":"brain"}',
    "a second value": b'{"x":{},"model":"brain"}["vector"]',
    "very many escapes": b'{"model":"vector","x":"' + rb"a\"" * 1_100_000 + b'"}',
    "very many names": b'{"model":"vector","a":[' + b'"",' * 300_000 + b'""]}',
}


@pytest.mark.parametrize("body", UNCLEAR.values(), ids=UNCLEAR)
def test_body_that_engines_could_understand_differently_is_refused(
    gateway: LocalGateway, brain: Engine, vector: Engine, body: bytes
) -> None:
    before = len(brain.requests) + len(vector.requests)
    for key in (APP, ONLY_VECTOR):
        answer = post(gateway, "/v1/embeddings", body, key)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_unclear")
    assert len(brain.requests) + len(vector.requests) == before


def test_compressed_body_is_refused(gateway: LocalGateway) -> None:
    answer = post(gateway, CHAT, {"model": "brain"}, **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_unclear")


def test_second_header_does_not_make_a_body_compressed(
    gateway: LocalGateway, vector: Engine
) -> None:
    """nginx before 1.23 sees the first header of a name. What the gateway read in plain text, an
    engine must not decompress."""
    body = b'{"model":"vector","input":"Hi"}'
    head = [
        "POST /v1/embeddings HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {APP}",
        f"Content-Length: {len(body)}",
        "Content-Encoding:",
        "Content-Encoding: zstd",
        "Connection: close",
    ]
    before = len(vector.requests)
    address = ("127.0.0.1", gateway.settings.gateway.port)
    with socket.create_connection(address, 10) as connection:
        connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        status = connection.recv(100).split()[1]
        while connection.recv(65_536):
            pass
    assert status in (b"200", b"400")
    assert all("content-encoding" not in each.headers for each in vector.requests[before:])
    # Elsewhere, it is the engine's to read.
    path = "/embeddings/v1/embeddings"
    post(gateway, path, body, **{"Content-Encoding": "zstd"}).raise_for_status()
    assert vector.requests[-1].headers["content-encoding"] == "zstd"


def test_body_that_is_said_not_to_be_compressed_is_read(gateway: LocalGateway) -> None:
    answer = post(gateway, CHAT, {"model": "brain"}, **{"Content-Encoding": "identity"})
    assert answer.status_code == 200


FORM = (
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nbrain\r\n'
    b'--x\r\nContent-Disposition: form-data; name="y"\r\n\r\n{"model":"vector"}\r\n--x--\r\n'
)


@pytest.mark.parametrize(
    "kinds", [["multipart/form-data; boundary=x"], ["application/json", "multipart/form-data"], []]
)
def test_engine_gets_what_was_read_as_json(
    gateway: LocalGateway, vector: Engine, kinds: list[str]
) -> None:
    """llama.cpp would make an object of the parts of a form, and take the model of that."""
    headers = [("Authorization", f"Bearer {APP}"), *(("Content-Type", kind) for kind in kinds)]
    url = f"{gateway.url}/v1/embeddings"
    httpx.post(url, content=FORM, headers=headers).raise_for_status()
    assert vector.requests[-1].headers["content-type"] == "application/json"
    # Elsewhere, it is the engine's to read.
    url = f"{gateway.url}/embeddings/v1/embeddings"
    httpx.post(url, content=FORM, headers=headers[:2]).raise_for_status()
    assert vector.requests[-1].headers.get("content-type", "") == (kinds[0] if kinds else "")


def test_engine_keeps_no_stream_by_a_name_of_the_client(
    gateway: LocalGateway, brain: Engine
) -> None:
    for path in (CHAT, "/tokenize"):
        post(gateway, path, {"model": "brain"}, **{"X-Conversation-Id": "a"}).raise_for_status()
        assert "x-conversation-id" not in brain.requests[-1].headers


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'"model"', b'{"model":null}', b"{bad"])
def test_body_without_a_model_is_refused(gateway: LocalGateway, body: bytes) -> None:
    answer = post(gateway, CHAT, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_missing")


def picture(mib: int) -> bytes:
    """A chat with a picture; its model is the last field."""
    url = "data:image/png;base64," + "QUJD" * (mib * 262_144)
    content = [{"type": "image_url", "image_url": {"url": url}}]
    return json.dumps(
        {"messages": [{"role": "user", "content": content}], "model": "brain"}
    ).encode()


def workers(gateway: LocalGateway) -> list[int]:
    master = int((gateway.directory / "nginx.pid").read_text())
    listed = Path(f"/proc/{master}/task/{master}/children").read_text()
    return [int(pid) for pid in listed.split()]


def spooled(gateway: LocalGateway) -> list[str]:
    """Bodies that a worker has on disk."""
    links = [link for pid in workers(gateway) for link in Path(f"/proc/{pid}/fd").iterdir()]
    targets = [str(link.readlink()) for link in links if link.is_symlink()]
    return [each.removesuffix(" (deleted)") for each in targets if "/body/" in each]


def most_memory(gateway: LocalGateway) -> int:
    """KiB that a worker had at most."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in workers(gateway)]
    return max(int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) for text in texts)


def test_large_body_is_routed_from_disk_and_leaves_nothing(
    gateway: LocalGateway, brain: Engine
) -> None:
    post(gateway, CHAT, {"model": "brain"}).raise_for_status()
    before = most_memory(gateway)
    body = picture(20)
    assert post(gateway, CHAT, body).json()["target"] == CHAT
    assert brain.requests[-1].body.encode() == body
    assert most_memory(gateway) - before < 4096
    assert spooled(gateway) == []


def test_aborted_request_leaves_no_body(gateway: LocalGateway) -> None:
    command = ["curl", "-sS", "--limit-rate", "4M", "-H", f"Authorization: Bearer {APP}"]
    command += ["--data-binary", "@-", f"{gateway.url}{CHAT}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as sending:
        assert sending.stdin
        sending.stdin.write(picture(20))
        sending.stdin.close()
        assert wait_until(lambda: bool(spooled(gateway)), 20)
        names = spooled(gateway)
        sending.kill()
    assert wait_until(lambda: not spooled(gateway), 20)
    assert not any(Path(name).exists() for name in names)


def test_what_a_worker_remembers_ends_with_its_configuration(
    brain: Engine, vector: Engine, tmp_path: Path
) -> None:
    data = inventory(brain.port, vector.port)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        for _ in range(8):  # both workers
            assert post(gateway, CHAT, {"model": "brain"}).status_code == 200
            assert post(gateway, CHAT, {"model": "brain"}, ONLY_VECTOR).status_code == 403
        data["models"][0]["name"] = "mind"
        gateway.reload(data)
        statuses = {"mind": 200, "brain": 404}

        def is_changed() -> bool:
            found = [post(gateway, CHAT, {"model": name}).status_code for name in statuses]
            return found == [*statuses.values()]

        # The old workers may still take a request.
        assert wait_until(lambda: all(is_changed() for _ in range(8)), 20)


@pytest.mark.parametrize("pieces", [1, 2], ids=["in one piece", "after its head"])
@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
def test_client_that_leaves_before_its_answer_frees_the_engine(
    tmp_path: Path, path: str, pieces: int
) -> None:
    """Whether its body was there with its head or not: nginx's Perl module differs in that."""
    with socket.create_server(("127.0.0.1", 0)) as engine:
        engine.settimeout(20)
        data = inventory(1025, free_ports(9)[-1], services=["ollama", "embeddings"])
        data["models"][0] |= {"service": "ollama"}
        data |= {"ollama_port": engine.getsockname()[1], "api_clients": data["api_clients"][:1]}
        del data["llamacpp_port"]
        with local_gateway(data, tmp_path / "nginx") as gateway:
            body = json.dumps({"model": "brain", "messages": []})
            leave(gateway, engine, path, body, APP, pieces)


def test_chunked_body_is_read_too(gateway: LocalGateway) -> None:
    headers = {"Authorization": f"Bearer {APP}"}
    for part, status in ((b'"model":"brain"}', 200), (b'"model":"other"}', 404)):
        chunks = iter([b'{"messages":[],', part])
        answer = httpx.post(f"{gateway.url}{CHAT}", content=chunks, headers=headers)
        assert answer.status_code == status


def test_stranger_is_refused_before_a_body_is_read(gateway: LocalGateway) -> None:
    port = gateway.settings.gateway.port
    for path in (CHAT, "/v1/models", "/v1/models/brain"):
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


def test_inner_locations_are_not_reached_from_outside(gateway: LocalGateway) -> None:
    inner = ("/@model_1", "/@model_step_1", "/_llmhost/401")
    for path in (*inner, "/v1/models/brain/x", "/v1/models/"):
        assert post(gateway, path, {"model": "brain"}).status_code in (403, 404)
        headers = {"Authorization": f"Bearer {APP}"}
        assert httpx.get(f"{gateway.url}{path}", headers=headers).status_code == 404


def test_paths_of_services_still_work(gateway: LocalGateway, vector: Engine) -> None:
    before = len(vector.requests)
    answer = post(gateway, "/embeddings/v1/embeddings", {"model": "anything"})
    assert answer.json()["target"] == "/v1/embeddings"
    assert len(vector.requests) == before + 1
    # Its scope names a model, not the service, whose engine would not look at the name.
    answer = post(gateway, "/embeddings/v1/embeddings", {"model": "vector"}, ONLY_VECTOR)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope_denied")


def test_log_has_what_answered_and_no_prompt(gateway: LocalGateway) -> None:
    body = {"model": "brain", "messages": [{"role": "user", "content": "SECRET-PROMPT"}]}
    post(gateway, CHAT, body, **{"X-Request-ID": "routed"})
    line = gateway.logged("routed")
    assert (line["route"], line["variant"]) == (CHAT, "brain/llamacpp")
    post(gateway, CHAT, {**body, "model": "SECRET-PROMPT"}, **{"X-Request-ID": "unrouted"})
    line = gateway.logged("unrouted")
    assert (line["refusal"], line["variant"]) == ("model_not_found", "")
    assert "SECRET-PROMPT" not in gateway.log_texts


def test_first_service_answers_everything_unless_models_decide(
    brain: Engine, vector: Engine, tmp_path: Path
) -> None:
    clients = [{"name": "app", "sha256": digest(APP)}]
    data = inventory(brain.port, vector.port, gateway_by_model=False, api_clients=clients)
    with local_gateway(data, tmp_path / "nginx") as gateway:
        before = len(brain.requests)
        assert post(gateway, CHAT, {"model": "anything"}).status_code == 200
        assert len(brain.requests) == before + 1
        assert not (gateway.directory / "llmhost/model-routes.conf").exists()


def test_rate_of_a_client_counts_each_request_once(
    brain: Engine, vector: Engine, tmp_path: Path
) -> None:
    client = {"name": "app", "sha256": digest(APP), "requests_per_minute": 1, "burst": 2}
    data = inventory(brain.port, vector.port, api_clients=[client])
    with local_gateway(data, tmp_path / "nginx") as gateway:
        statuses = [post(gateway, CHAT, {"model": "brain"}).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]


def test_client_has_no_more_streams_than_it_may(
    brain: Engine, vector: Engine, tmp_path: Path
) -> None:
    client = {"name": "app", "sha256": digest(APP), "concurrent_streams": 1}
    data = inventory(brain.port, vector.port, api_clients=[client])
    body = {"model": "brain", "stream": True, "chunks": 3, "interval": 1}
    headers = {"Authorization": f"Bearer {APP}"}
    with local_gateway(data, tmp_path / "nginx") as gateway:
        url = f"{gateway.url}{CHAT}"
        with httpx.stream("POST", url, json=body, headers=headers) as first:
            assert first.status_code == 200
            assert post(gateway, CHAT, {"model": "brain"}).status_code == 429


# The checks have markers that only their own pytest knows.
VERIFY = """
import json, sys
from llmhost.checks import test_gateway as checks
from llmhost.checks.outside import Outside
from llmhost.gateway.models import model_routes
from llmhost.inventory.reader import read_settings
data, url, key = json.loads(sys.argv[1]), *sys.argv[2:]
outside, routed = Outside(()), model_routes(read_settings(data))
caller = checks.Caller(outside, url, ())
checks.test_models_are_listed_at_one_address(caller, key, routed)
checks.test_each_place_of_models_answers_at_one_address(caller, key, routed, {})
checks.test_unknown_model_is_refused(caller, key, routed)
outside.close()
print("as declared")
"""


def test_verify_finds_what_is_declared_and_what_is_not(
    brain: Engine, vector: Engine, tmp_path: Path
) -> None:
    """Also if another configuration runs: the first service answers, or an engine is down."""
    data = inventory(brain.port, vector.port)
    others: dict[str, Data] = {
        "declared": {},
        "first": {"gateway_by_model": False, "api_clients": data["api_clients"][:1]},
        "down": {"embeddings_port": free_ports(9)[-1]},
    }
    for name, more in others.items():
        other = {**inventory(brain.port, vector.port), **more}
        with local_gateway(other, tmp_path / name) as gateway:
            command = [sys.executable, "-c", VERIFY, json.dumps(data), gateway.url, APP]
            run = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert (run.stdout == "as declared\n") == (name == "declared"), run.stdout + run.stderr
