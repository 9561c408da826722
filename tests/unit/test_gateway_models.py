"""Where requests go that name a model: what is declared, mistakes, and how a body is read."""

import json
import random
import re
import subprocess
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from llmhost.cli import roll
from llmhost.gateway.keys import digest
from llmhost.gateway.models import fallbacks_of, is_routed, model_routes, other_names
from llmhost.gateway.pool import drain_refusal
from llmhost.gateway.tree import pool
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site_reader import HostData, SiteError, read_site
from llmhost.resources import FILES
from llmhost.settings import Settings
from llmhost.stack.project import service_images

GATE = "llmhost-" + "a" * 64


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_KEY", GATE)


def model(name: str, service: str, **more: object) -> dict[str, Any]:
    return {"name": name, "service": service, "source": "https://x/m", "sha256": "1" * 64, **more}


BRAIN, SEARCH = model("brain", "llamacpp"), model("search", "ollama")
VECTOR = model("vector", "embeddings", task="embed")
STYLED = {
    "name": "coder",
    "service": "vllm",
    "source": "hf:maker/Coder",
    "revision": "a" * 40,
    "files": [{"path": "model.safetensors", "sha256": "1" * 64}],
    "adapters": [{"name": "style", "source": "nowhere", "sha256": "1" * 64}],
}


def inventory(*models: dict[str, Any], **more: object) -> dict[str, Any]:
    return {
        "services": list(dict.fromkeys(each["service"] for each in models)),
        "models": list(models),
        "api_clients": [{"name": "gate", "sha256": digest(GATE)}],
        **more,
    }


def settings(*models: dict[str, Any], **more: object) -> Settings:
    return read_settings(inventory(*models, **more))


def gate(**more: object) -> dict[str, Any]:
    return {
        "gateway_upstreams": [
            {"name": "llm-1", "address": "10.0.0.1"},
            {"name": "llm-2", "address": "10.0.0.2"},
        ],
        "gateway_upstream_services": ["ollama", "qdrant"],
        "gateway_upstream_models": [
            {"name": "brain", "service": "ollama", "servers": ["llm-1"]},
            {"name": "search", "service": "ollama", "servers": ["llm-2"]},
        ],
        "gateway_upstream_key": "env:GATE_KEY",
        "gateway_upstream_name": "servers.example",
        "api_clients": [{"name": "app", "sha256": "1" * 64}],
        **more,
    }


def test_one_service_is_not_routed_until_it_makes_a_difference() -> None:
    assert not is_routed(settings(BRAIN))
    assert is_routed(settings(BRAIN, VECTOR))
    assert not is_routed(settings(BRAIN, VECTOR, gateway_by_model=False))
    client = {"name": "app", "sha256": "1" * 64, "scope": ["llamacpp"]}
    assert not is_routed(settings(BRAIN, api_clients=[client]))
    assert is_routed(settings(BRAIN, api_clients=[{**client, "scope": ["brain"]}]))
    assert not is_routed(read_settings(gate(gateway_upstream_models=[])))
    assert is_routed(read_settings(gate()))


def test_model_service_that_is_not_the_first_answers_at_v1() -> None:
    data = inventory(BRAIN, services=["docling", "llamacpp"])
    routes = model_routes(read_settings(data, rules=lambda _: ()))
    assert routes and "/v1/chat/completions" in routes.paths


def test_engines_know_the_names_of_models_that_fall_back_to_theirs() -> None:
    fallbacks = {"gateway_fallbacks": {"brain": ["search"]}}
    both = settings(BRAIN, SEARCH, **fallbacks)
    assert other_names(both, "ollama") == {"search": ("brain",)}
    assert other_names(both, "llamacpp") == {}
    [image] = [each for each in service_images(both) if each.service == "ollama"]
    roles = {f.path: f.data for f in image.context if f.path.startswith("roles/")}
    assert roles["roles/brain"] == roles["roles/search"]
    # On a server that has only the second model.
    assert other_names(settings(SEARCH, **fallbacks), "ollama") == {"search": ("brain",)}


def test_fallbacks_are_followed_in_order() -> None:
    fallbacks = {"a": ["b", "c"], "b": ["d"], "c": ["a"]}
    assert fallbacks_of(fallbacks, "a") == ("b", "d", "c")


SHARED = (BRAIN, model("brain", "ollama"))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            inventory(BRAIN, SEARCH, gateway_fallbacks={"brain": ["serach"]}),
            "gateway_fallbacks: 'serach' is not a model; write names such as brain, search",
        ),
        (
            inventory(BRAIN, SEARCH, gateway_fallbacks={"brian": ["search"]}),
            "gateway_fallbacks: 'brian' is not a model",
        ),
        (
            inventory(BRAIN, SEARCH, gateway_fallbacks={"brain": ["search"], "search": ["brain"]}),
            "gateway_fallbacks: leads from 'brain' back to it: brain → search → brain; remove one",
        ),
        (
            inventory(BRAIN, SEARCH, gateway_fallbacks={"brain": ["brain"]}),
            "gateway_fallbacks: leads from 'brain' back to it: brain → brain",
        ),
        (
            inventory(BRAIN, VECTOR, gateway_fallbacks={"brain": ["vector"]}),
            "gateway_fallbacks: 'vector' does not generate text",
        ),
        (
            inventory(model("brain", "ollama"), SEARCH, gateway_fallbacks={"brain": ["search"]}),
            "gateway_fallbacks: 'search' runs in the same service as 'brain'",
        ),
        (
            inventory(BRAIN, gateway_fallbacks={"brain": []}),
            "gateway_fallbacks.brain: is an empty list",
        ),
        (
            inventory(*SHARED),
            "models: 'brain' is declared 2 times; keep one; if several services run it, declare"
            " gateway_shares",
        ),
        (
            inventory(BRAIN, BRAIN, gateway_shares={"brain": {"llamacpp": 1}}),
            "models: 'brain' is declared 2 times",
        ),
        (
            inventory(*SHARED, gateway_shares={"brain": {"llamacpp": 90, "ollama": -10}}),
            "gateway_shares.brain.ollama: is -10; write a whole number of parts from 0 to 1000",
        ),
        (
            inventory(*SHARED, gateway_shares={"brain": {"llamacpp": 0, "ollama": 0}}),
            "gateway_shares: 'brain' has no share above 0",
        ),
        (
            inventory(*SHARED, gateway_shares={"brain": {"llamacpp": 90}}),
            "gateway_shares: 'brain' has no share for 'ollama', which runs it, too; write one",
        ),
        (
            inventory(*SHARED, gateway_shares={"brain": {"llamacpp": 9, "ollama": 1, "vllm": 1}}),
            "gateway_shares: 'vllm' does not run 'brain'; write shares of: llamacpp, ollama",
        ),
        (
            inventory(BRAIN, gateway_shares={"other": {"llamacpp": 9}}),
            "gateway_shares: 'other' is not a model",
        ),
        (
            inventory(
                *SHARED,
                gateway_by_model=False,
                gateway_shares={"brain": {"llamacpp": 90, "ollama": 10}},
            ),
            "gateway_by_model: is declared, and gateway_shares needs the model",
        ),
        (
            inventory(BRAIN, api_clients=[{"name": "a", "sha256": "1" * 64, "scope": ["brian"]}]),
            "api_clients[0].scope: 'a' may call 'brian', which is neither a service nor a model",
        ),
        (
            inventory(
                model("llamacpp", "ollama"),
                BRAIN,
                api_clients=[{"name": "a", "sha256": "1" * 64, "scope": ["llamacpp"]}],
            ),
            "api_clients[0].scope: 'a' may call 'llamacpp', which is both a service and a model",
        ),
        (
            inventory(BRAIN, STYLED, vllm_gpu=[0], gateway_fallbacks={"brain": ["style"]}),
            "gateway_fallbacks: 'style' is an adapter, which its engine knows by this name only",
        ),
        (
            inventory(BRAIN, gateway_upstream_models=[{"name": "a", "service": "ollama"}]),
            "gateway_upstream_models: are models of servers behind a gateway",
        ),
        (
            gate(gateway_upstream_models=[{"name": "a", "service": "vllm"}]),
            "gateway_upstream_models[0].service: 'vllm' is not one of gateway_upstream_services",
        ),
        (
            gate(gateway_upstream_models=[{"name": "a", "service": "qdrant"}]),
            "gateway_upstream_models[0].service: 'qdrant' has no routes of OpenAI's API",
        ),
        (
            gate(gateway_upstream_models=[{"name": "a", "service": "ollama", "servers": ["x"]}]),
            "gateway_upstream_models[0].servers: 'x' is not one of gateway_upstreams; write names",
        ),
        (
            gate(gateway_upstream_models=[{"name": "a", "service": "ollama"}] * 2),
            "gateway_upstream_models[1].name: 'a' is declared twice for llm-1; keep one",
        ),
        (
            gate(gateway_fallbacks={"brain": ["other"]}),
            "gateway_fallbacks: 'other' is not a model; write names such as brain, search",
        ),
    ],
)
def test_mistake_is_one_sentence(data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SiteError) as caught:
        read_site([HostData("h", data)])
    assert any(each.startswith(f"h: {sentence}") for each in caught.value.sentences), caught.value
    assert all("Traceback" not in each for each in caught.value.sentences)


def test_gateway_and_its_servers_must_agree() -> None:
    servers = [
        HostData("llm-1", inventory(model("brain", "ollama"))),
        HostData("llm-2", inventory(SEARCH)),
    ]
    read_site([*servers, HostData("gate", gate())])
    for more, sentence in (
        (
            {"gateway_upstream_models": [{"name": "brain", "service": "ollama"}]},
            "gate: gateway_upstream_models: llm-2 does not run 'brain' with the service 'ollama'",
        ),
        (
            {
                "gateway_upstream_models": [
                    {"name": "search", "service": "ollama", "servers": ["llm-2"], "task": "embed"}
                ]
            },
            "gate: gateway_upstream_models: 'search' has another task or context_tokens on llm-2",
        ),
        (
            {"gateway_fallbacks": {"brain": ["search"]}},
            "gate: gateway_fallbacks: 'brain' falls back to a model of llm-2, which does not know"
            " that name; declare the same gateway_fallbacks for llm-2",
        ),
    ):
        with pytest.raises(SiteError) as caught:
            read_site([*servers, HostData("gate", gate(**more))])
        assert sentence in "\n".join(caught.value.sentences)
    fallbacks = {"gateway_fallbacks": {"brain": ["search"]}}
    prepared = [HostData(each.name, {**each.data, **fallbacks}) for each in servers]
    read_site([*prepared, HostData("gate", gate(**fallbacks))])


@pytest.mark.parametrize("is_known", [True, False], ids=["in the inventory", "elsewhere"])
def test_scope_with_some_services_needs_the_models_of_the_servers(is_known: bool) -> None:
    """The servers choose by model among both, for the only key that they know. With the models, the
    gateway chooses itself."""
    server = HostData("llm-1", inventory(BRAIN, VECTOR))
    data = {
        "gateway_upstreams": [{"name": "llm-1", "address": "10.0.0.1"}],
        "gateway_upstream_services": ["llamacpp", "embeddings"],
        "gateway_upstream_models": [],
    }
    models = {
        "gateway_upstream_models": [
            {"name": "brain", "service": "llamacpp"},
            {"name": "vector", "service": "embeddings", "task": "embed"},
        ]
    }
    by_service = {"gateway_upstream_models": [], "gateway_upstream_services": ["llamacpp"]}

    def found(scope: list[str], **more: object) -> str:
        client = {"name": "narrow", "sha256": "1" * 64, "scope": scope}
        hosts = [server] if is_known else []
        try:
            read_site([*hosts, HostData("gate", gate(**{**data, "api_clients": [client], **more}))])
        except SiteError as error:
            return "\n".join(error.sentences)
        return ""

    assert found(["llamacpp"]) == (
        "gate: gateway_upstream_models: is missing: the scope of 'narrow' lacks embeddings, which"
        " llm-1 would answer for at the same address; declare the models, so that this gateway"
        " chooses"
    )
    assert found(["llamacpp", "embeddings"]) == ""
    assert found(["llamacpp"], **models) == ""
    assert bool(found(["llamacpp"], **by_service)) == is_known


@pytest.mark.parametrize("is_known", [True, False], ids=["in the inventory", "elsewhere"])
def test_scope_is_not_widened_by_the_fallbacks_of_a_server(is_known: bool) -> None:
    """A server with both models falls back by itself, for the only key that it knows."""
    fallbacks = {"gateway_fallbacks": {"brain": ["search"]}}
    server = HostData("llm-1", inventory(BRAIN, SEARCH, **fallbacks))
    data = {
        "gateway_upstreams": [{"name": "llm-1", "address": "10.0.0.1"}],
        "gateway_upstream_services": ["llamacpp", "ollama"],
        "gateway_upstream_models": [
            {"name": "brain", "service": "llamacpp"},
            {"name": "search", "service": "ollama"},
        ],
        **fallbacks,
    }

    def found(scope: object) -> str:
        client = {"name": "narrow", "sha256": "1" * 64, "scope": scope}
        hosts = [server] if is_known else []
        try:
            read_site([*hosts, HostData("gate", gate(**{**data, "api_clients": [client]}))])
        except SiteError as error:
            return "\n".join(error.sentences)
        return ""

    sentence = (
        "gate: api_clients[0].scope: lacks search, with which llm-1 answers for 'brain' if that is"
        " down or full; add it, or remove these gateway_fallbacks of llm-1"
    )
    assert found(["brain"]) == sentence
    assert found(["llamacpp"]) == sentence
    for scope in (["brain", "search"], ["search"], ["llamacpp", "ollama"], "inference", "admin"):
        assert found(scope) == ""


def test_problem_of_a_duplicate_without_shares_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        settings(*SHARED)
    assert len(caught.value.problems) == 1


def test_last_server_of_a_model_is_not_drained() -> None:
    found = pool(read_settings(gate()))
    assert found
    expected = "llm-1 is the last server that takes requests for the model brain"
    assert drain_refusal(found, (), ["llm-1"]) == expected
    models = [{"name": "brain", "service": "ollama"}]
    found = pool(read_settings(gate(gateway_upstream_models=models)))
    assert found and drain_refusal(found, (), ["llm-1"]) == ""


def test_server_whose_share_is_0_does_not_replace_a_drained_one() -> None:
    """nginx sends it nothing: requests for the model would get 502."""
    models = [{"name": "brain", "service": "ollama"}]
    shares = {"brain": {"llm-1": 1, "llm-2": 0}}
    settings = read_settings(gate(gateway_upstream_models=models, gateway_shares=shares))
    found = pool(settings)
    assert found
    expected = "llm-1 is the last server that takes requests for the model brain"
    assert drain_refusal(found, (), ["llm-1"]) == expected
    assert drain_refusal(found, (), ["llm-2"]) == ""
    assert roll._state(settings, {}).models == {"model_1": {"llm-1"}}


# How a body is read: the handlers of nginx, in Perl, against Python's JSON.

HANDLERS = FILES / "gateway/models/body.conf"
DRIVER = r"""
binmode STDIN;
while (read STDIN, my $head, 8) {
    my ($length, $size) = unpack "NN", $head;
    read STDIN, my $body, $length;
    my $model;
    if ($size) {
        my @pieces = unpack "(a$size)*", $body;
        $model = LLMHost::model_in(sub { shift @pieces });
    } else {
        $model = LLMHost::model_in_memory($body);
    }
    print defined $model ? unpack("H*", $model) : "refused", "\n";
}
"""


def read_models(
    bodies: list[bytes], size: int, tmp_path: Path, expected: Sequence[str] = ()
) -> list[str | None]:
    """The model of each body, read in pieces of a size, or 0: as one; None: refused.

    `expected` are models that other requests have named before."""
    handlers = re.findall(r"perl_set \$\w+ '(.*?)';", HANDLERS.read_text(), re.DOTALL)
    subs = [f"my $unused_{i} = do {{ {text} }};" for i, text in enumerate(handlers[:3])]
    program = tmp_path / "read.pl"
    known = [f'LLMHost::expect_model("{name}");' for name in expected]
    program.write_text("\n".join([*subs, *known, DRIVER]))
    sent = b"".join(len(b).to_bytes(4, "big") + size.to_bytes(4, "big") + b for b in bodies)
    run = subprocess.run(["perl", program], input=sent, capture_output=True, check=True)
    lines = run.stdout.decode().splitlines()
    return [None if x == "refused" else bytes.fromhex(x).decode(errors="replace") for x in lines]


def random_value(chance: random.Random, depth: int = 0) -> Any:
    texts = [
        "model",
        "brain",
        'a"b',
        "\\",
        '\\"',
        "{",
        "}]",
        "ü",
        "\u2028",
        "",
        "mod\\u0065l",
        ":,",
    ]
    kind = chance.randrange(7 if depth < 4 else 4)
    if kind < 3:
        return chance.choice(texts) + chance.choice(texts)
    if kind == 3:
        return chance.choice([None, True, 1, -2.5, 10**20])
    if kind < 5:
        return [random_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    pairs = range(chance.randrange(4))
    return {chance.choice([*texts, "x"]): random_value(chance, depth + 1) for _ in pairs}


def random_body(chance: random.Random) -> tuple[bytes, str]:
    """An object with a model at a random place, and the model."""
    fields = {f"f{number}": random_value(chance) for number in range(chance.randrange(5))}
    pairs = list(fields.items())
    name = chance.choice(["brain", "search", "", "a/b"])
    pairs.insert(chance.randrange(len(pairs) + 1), ("model", name))
    indent = chance.choice([None, None, 2])
    separators = chance.choice([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")])
    text = json.dumps(
        dict(pairs), ensure_ascii=chance.random() < 0.5, indent=indent, separators=separators
    )
    return text.encode(), name


@pytest.mark.parametrize("size", [0, 1, 2, 7, 64])
def test_model_is_found_as_python_finds_it(tmp_path: Path, size: int) -> None:
    chance = random.Random(size)
    bodies = [random_body(chance) for _ in range(400)]
    found = read_models([body for body, _ in bodies], size, tmp_path)
    assert found == [name for _, name in bodies]


@pytest.mark.parametrize("size", [0, 1, 3])
def test_second_model_is_refused_wherever_it_is(tmp_path: Path, size: int) -> None:
    chance = random.Random(size)
    seconds = ['"model"', '"MODEL"', r'"\u006dodel"', r'"m\u006Fdel"', r'"mode\u004c"']
    bodies = []
    for number, second in zip(count(), seconds * 40, strict=False):
        body, _ = random_body(chance)
        text = body.decode()
        extra = f"{second}:{json.dumps(random_value(chance))}"
        at = text.index("{") + 1
        bodies.append(
            (
                text[:at] + extra + "," + text[at:] if number % 2 else text[:-1] + "," + extra + "}"
            ).encode()
        )
    assert set(read_models(bodies, size, tmp_path)) == {None}


MODELS = ("brain", "search", "a/b")


def test_expected_model_is_found_as_the_others_are(tmp_path: Path) -> None:
    """A worker knows the beginnings of bodies that name a model which there is."""
    chance = random.Random(0)
    bodies = []
    for _ in range(400):
        fields = {"model": chance.choice([*MODELS, "other"])}
        fields |= {f"f{number}": random_value(chance) for number in range(chance.randrange(3))}
        separators = chance.choice([(",", ":"), (", ", ": ")])
        bodies.append(json.dumps(fields, separators=separators).encode())
    found = read_models(bodies, 0, tmp_path, MODELS)
    assert found == [json.loads(body)["model"] for body in bodies]


@pytest.mark.parametrize(
    "rest",
    [
        ',"model":"search"}',
        ',"Model":"search"}',
        ',"x":"tool","MODEL" : "search"}',
        r',"\u006dodel":"search"}',
        r',"mode\u004C":"search"}',
        r',"x":"\\","model":"search"}',
        '} {"model":"search"}',
        ',"x":1}\0',
        ',"x":1,"model":{}}',
    ],
)
def test_expected_model_does_not_hide_another(tmp_path: Path, rest: str) -> None:
    bodies = [(start + rest).encode() for start in ('{"model":"brain"', '{"model": "brain"')]
    assert read_models(bodies, 0, tmp_path, MODELS) == [None, None]
    # Nested, or within a text, it is another thing.
    bodies = [
        b'{"model": "brain", "x": {"model": "search"}}',
        rb'{"model":"brain","x":"\"model\":"}',
    ]
    assert read_models(bodies, 0, tmp_path, MODELS) == ["brain", "brain"]


def first_value(body: bytes) -> Any:
    """What Go's decoder reads, which Ollama's server uses (gin's binding/json.go): the first value
    of a body. It ignores the rest."""
    return json.JSONDecoder().raw_decode(body.decode())[0]


@pytest.mark.parametrize("size", [0, 1, 3, 64])
def test_second_value_does_not_hide_the_model(tmp_path: Path, size: int) -> None:
    """A client that may use `search` alone would get `brain` from an engine that reads the first
    value of such a body."""
    fields = b'"messages":[],"model":"brain"}'
    seconds = [b'["search"]', b' [1,"search"]', b'{"x":{"y":"search"}}', b'\n{"model":"search"}']
    bodies = [b"{" + fields + second for second in seconds]
    bodies += [b'{"x":"' + b"y" * 70_000 + b'",' + fields + second for second in seconds]
    assert {first_value(body)["model"] for body in bodies} == {"brain"}
    assert set(read_models(bodies, size, tmp_path)) == {None}


def test_handlers_fit_into_a_parameter_of_nginx() -> None:
    """ngx_conf_read_token: NGX_CONF_BUFFER."""
    for path in sorted((FILES / "gateway").rglob("*.conf")):
        for text in re.findall(r"perl(?:_set \$\w+)? '(.*?)';", path.read_text(), re.DOTALL):
            assert len(text) < 4096, path


def test_share_of_nothing_gets_nothing_at_any_path() -> None:
    """Only vLLM answers at /v1/score: an upstream whose only server is down would be 502."""
    brain = {**STYLED, "name": "brain", "adapters": []}
    shares = {"brain": {"llamacpp": 100, "vllm": 0}}
    routes = model_routes(settings(BRAIN, brain, gateway_shares=shares))
    assert routes and routes.steps["brain", "/v1/score"] == () and "/v1/score" in routes.paths
    assert all(upstream.answering for upstream in routes.upstreams.values())
    shares = {"brain": {"llamacpp": 0, "vllm": 100}}
    routes = model_routes(settings(BRAIN, brain, gateway_shares=shares))
    assert routes and routes.steps["brain", "/v1/score"]
