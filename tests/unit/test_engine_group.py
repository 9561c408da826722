"""Engine groups: several hosts that run one vLLM."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmhost.docker.confinement import Confinement, additions, on_host_network
from llmhost.gateway.keys import digest
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site import head_of
from llmhost.inventory.site_reader import HostData, SiteError, read_site
from llmhost.preflight import not_in_group
from llmhost.settings import Settings
from llmhost.stack.egress import RULES, egress_files
from llmhost.stack.engine_group import PROGRAM, shared_digest, token_for
from llmhost.stack.project import compose_project, service_images
from llmhost.system.addresses import LiveAddress, NetworkState
from llmhost.system.files import File
from llmhost.system.ufw import openings
from llmhost.tasks.firewall import gateway_openings, group_openings
from llmhost.vram.plan import vram_plan

Data = dict[str, Any]
GATE = "llmhost-" + "5" * 64
GROUP: Data = {
    "engine_group_members": {"one": "10.9.0.1", "two": "10.9.0.2"},
    "engine_group_head": "one",
    "engine_group_interface": "eth1",
    "engine_group_token": "env:LLMHOST_TEST_GROUP",
}
SHAPE: Data = {
    "weights_bytes": 64 * 2**30,
    "cache_values": 131_072,
    "hidden_size": 8192,
    "vocabulary_size": 128_256,
    "layers": 80,
    "attention_heads": 64,
}


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMHOST_TEST_GROUP", "g" * 32)


def site_data(**changes: Any) -> Data:
    shape = SHAPE | changes.pop("shape", {})
    model: Data = {
        "name": "brain",
        "service": "vllm",
        "source": "hf:example/brain",
        "revision": "ab" * 20,
        "files": [{"path": "model.safetensors", "sha256": hashlib.sha256(b"").hexdigest()}],
        "shape": shape,
    }
    return {
        "services": ["vllm"],
        "models": [model],
        "vllm_gpu": [0, 1],
        "api_clients": [{"name": "gate", "sha256": digest(GATE)}],
        **GROUP,
        **changes,
    }


def member(name: str, **changes: Any) -> Settings:
    try:
        return read_settings(site_data(**changes), name=name)
    except SettingsError as error:
        raise AssertionError([each.sentence(name) for each in error.problems]) from None


def mistakes(*hosts: tuple[str, Data]) -> list[str]:
    try:
        read_site([HostData(name, data) for name, data in hosts])
    except SiteError as error:
        return list(error.sentences)
    return []


def of_both(one: Data | None = None, two: Data | None = None, **both: Any) -> list[str]:
    first, second = site_data(**both) | (one or {}), site_data(**both) | (two or {})
    return mistakes(("one", first), ("two", second))


def service(settings: Settings) -> Data:
    text = compose_project(settings).services["vllm"]
    return dict(yaml.safe_load(text)["services"]["vllm"])


def test_members_have_one_image_and_one_token() -> None:
    one, two = member("one"), member("two")
    assert service(one)["image"] == service(two)["image"]
    tokens = {service(each)["environment"]["RAY_AUTH_TOKEN"] for each in (one, two)}
    assert tokens == {token_for("g" * 32, service(one)["image"])}
    assert "vllm" in compose_project(one).private


def test_token_depends_on_the_weights() -> None:
    other = site_data()
    other["models"][0]["files"] = [{"path": "model.safetensors", "sha256": "cd" * 32}]
    found = service(read_settings(other, name="two"))["environment"]["RAY_AUTH_TOKEN"]
    assert found != service(member("one"))["environment"]["RAY_AUTH_TOKEN"]


def test_receipts_of_members_show_whether_they_fit() -> None:
    def digest_of(name: str, **changes: Any) -> str:
        settings = member(name, **changes)
        images = {image.service: image.reference for image in service_images(settings)}
        return shared_digest(settings, images)

    same = digest_of("one")
    assert digest_of("two") == digest_of("two", engine_group_interface="eth9") == same
    assert digest_of("two", vllm_timezone="Asia/Seoul") == same
    others: list[Data] = [
        {"engine_group_members": GROUP["engine_group_members"] | {"three": "10.9.0.3"}},
        {"engine_group_head": "two"},
        {"engine_group_port": 6380},
        {"engine_group_tensor_parallel": 4},
        {"vllm_extra_arguments": ["--enforce-eager"]},
        {"vllm_image": "vllm/vllm-openai@sha256:" + "e" * 64},
    ]
    assert len({same, *(digest_of("one", **each) for each in others)}) == len(others) + 1


def test_receipt_shows_another_secret_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = member("one")
    images = {image.service: image.reference for image in service_images(settings)}
    before = shared_digest(settings, images)
    monkeypatch.setenv("LLMHOST_TEST_GROUP", "h" * 32)
    assert shared_digest(settings, images) != before


def test_all_gpus_of_all_members_compute() -> None:
    command = service(member("one"))["command"]
    assert command[command.index("--tensor-parallel-size") + 1] == "2"
    assert command[command.index("--pipeline-parallel-size") + 1] == "2"
    assert command[command.index("--distributed-executor-backend") + 1] == "ray"


@pytest.mark.parametrize(
    ("given", "tensor", "pipeline"),
    [
        ({"engine_group_tensor_parallel": 4}, "4", "1"),
        ({"engine_group_pipeline_parallel": 4}, "1", "4"),
        ({"vllm_tensor_parallel": 1}, "1", "4"),
    ],
)
def test_division_is_declared(given: Data, tensor: str, pipeline: str) -> None:
    command = service(member("one", **given))["command"]
    assert command[command.index("--tensor-parallel-size") + 1] == tensor
    assert command[command.index("--pipeline-parallel-size") + 1] == pipeline


def test_api_of_the_head_listens_on_the_loopback() -> None:
    found = service(member("one"))
    assert found["network_mode"] == "host" and "ports" not in found and "dns" not in found
    assert found["command"][found["command"].index("--host") + 1] == "127.0.0.1"
    assert found["entrypoint"] == ["python3", PROGRAM]
    assert found["init"] is True and found["restart"] == "unless-stopped"
    assert found["pids_limit"] == 1536


def test_member_knows_its_place() -> None:
    found = service(member("two"))["environment"]
    assert found["LLMHOST_GROUP_HEAD"] == "10.9.0.1:6379"
    assert found["LLMHOST_GROUP_OWN"] == found["VLLM_HOST_IP"] == "10.9.0.2"
    assert found["LLMHOST_GROUP_MEMBERS"] == "10.9.0.1 10.9.0.2"
    assert found["LLMHOST_GROUP_GPUS"] == "2"
    assert found["RAY_AUTH_MODE"] == "token" and found["RAY_USAGE_STATS_ENABLED"] == "0"


def test_image_also_has_ray_by_hash() -> None:
    (image,) = service_images(member("one"))
    files = {each.path: each.data.decode() for each in image.context}
    assert {"Dockerfile", "engine_group.py", "ray.in", "ray.lock", "pip.conf"} == {*files}
    assert (
        files["Dockerfile"].count("\nFROM base\n") == 1
        and "--require-hashes" in files["Dockerfile"]
    )
    assert "ray==" in files["ray.lock"] and "--hash=sha256:" in files["ray.lock"]
    alone = read_settings({k: v for k, v in site_data().items() if "group" not in k})
    assert [each.path for each in service_images(alone)[0].context] == ["Dockerfile"]


def test_firewall_admits_the_other_members_on_their_interface() -> None:
    (opening,) = openings(group_openings(member("one")), 4)
    assert opening.tuple.startswith("allow tcp 1024:65535 0.0.0.0/0 any 10.9.0.2 in_eth1")
    # As ufw itself writes it (UFWRule.format_rule in ufw 0.36.2).
    assert (
        opening.arguments == "-i eth1 -p tcp -m multiport --dports 1024:65535 -s 10.9.0.2 -j ACCEPT"
    )
    assert 6379 not in {rule.port for rule in gateway_openings(member("one"))}
    assert group_openings(read_settings({"services": []})) == ()


def test_engine_connects_to_members_only() -> None:
    files = {each.path: each for each in egress_files(member("two", stack_egress="deny"))}
    rules = files[RULES]
    assert isinstance(rules, File)
    assert 'oifname "eth1" ip daddr { 10.9.0.1 } accept' in rules.data.decode()


def test_only_the_head_answers() -> None:
    assert [each.name for each in member("one").offered] == ["vllm"]
    assert member("two").offered == ()
    assert mistakes(("one", site_data()), ("two", site_data())) == []


def test_memory_is_that_of_all_members() -> None:
    gpus = (80 * 2**30,) * 2
    group = vram_plan(member("one"), gpus).ledgers
    alone = read_settings({k: v for k, v in site_data().items() if "group" not in k})
    assert len(group) == 2
    for ours, theirs in zip(group, vram_plan(alone, gpus).ledgers, strict=True):
        assert ours.loads[0].memory.weights_bytes == 16 * 2**30
        assert theirs.loads[0].memory.weights_bytes == 32 * 2**30


def test_largest_stage_counts() -> None:
    """Three layers in two stages: one of them has two."""
    plan = vram_plan(member("one", shape={"layers": 3}), (80 * 2**30,) * 2)
    assert plan.ledgers[0].loads[0].memory.weights_bytes == -(-64 * 2**30 // 3)


def test_model_that_fits_nowhere_is_refused() -> None:
    found = of_both(vram_gpus_gib=[16, 16])
    assert len(found) == 4 and all("too small for its models" in each for each in found)
    assert of_both(vram_gpus_gib=[80, 80]) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"engine_group_head": None}, "engine_group_head: is"),
        ({"engine_group_head": "three"}, "engine_group_head: 'three' is not a member"),
        ({"engine_group_members": {"one": "10.9.0.1"}}, "engine_group_members: has one host"),
        (
            {"engine_group_members": {"one": "10.9.0.1", "two": "10.9.0.1"}},
            "engine_group_members: has 10.9.0.1 for 2 hosts",
        ),
        (
            {"engine_group_members": {"one": "127.0.0.1", "two": "10.9.0.2"}},
            "engine_group_members: has 127.0.0.1 for one, which others cannot reach",
        ),
        (
            {"engine_group_members": {"one": "10.9.0.1", "two": "0.0.0.0"}},
            "engine_group_members: has 0.0.0.0 for two, which others cannot reach",
        ),
        # The firewall admits members to ports from 1024.
        ({"engine_group_port": 1000}, "engine_group_port: is 1000; write a port number from 1024"),
        ({"engine_group_members": {}}, "engine_group_members: is missing, and engine_group_head"),
        ({"engine_group_token": "env:NOT_SET"}, "engine_group_token: refers to"),
        ({"firewall_enabled": False}, "firewall_enabled: is False"),
        ({"vllm_gpu": None}, "vllm_gpu: is missing"),
        ({"vllm_extra_arguments": ["--nnodes=2"]}, "vllm_extra_arguments: has --nnodes"),
        ({"vllm_extra_arguments": ["--nno=2"]}, "vllm_extra_arguments: has --nno,"),
        ({"vllm_extra_arguments": ["-n", "2"]}, "vllm_extra_arguments: has -n,"),
        ({"vllm_extra_arguments": ["--mas", "x"]}, "vllm_extra_arguments: has --mas,"),
        (
            {"engine_group_tensor_parallel": 2, "engine_group_pipeline_parallel": 4},
            "use 2 × 4 = 8 GPUs, and the 2 members have 4",
        ),
        ({"shape": {"attention_heads": 7}}, "has 7 attention heads, which 2 GPUs cannot divide"),
        ({"shape": {"layers": 1}}, "has 1 layers, and they are divided into 2 stages"),
        # "AssertionError: 151936 is not divisible by 3" (vllm-project/vllm, issues 6385 and 31474)
        (
            {"vllm_gpu": [0, 1, 2], "shape": {"attention_heads": 24, "vocabulary_size": 151_900}},
            "has a vocabulary of 151936 with its padding, which 3 GPUs cannot divide",
        ),
        ({"vllm_port": 6379}, "engine_group_port and vllm_port are both 6379"),
    ],
)
def test_mistakes_of_a_member(changes: Data, expected: str) -> None:
    found = of_both(**changes)
    assert found and all(sentence.count("\n") == 0 for sentence in found)
    assert any(expected in sentence for sentence in found), found


def test_short_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMHOST_TEST_GROUP", "short")
    assert "has 5 characters, and 32 are required" in of_both()[0]


@pytest.mark.parametrize("missing", ["engine_group_interface", "engine_group_token"])
def test_missing_options_are_told(missing: str) -> None:
    data = {key: value for key, value in site_data().items() if key != missing}
    found = mistakes(("one", data), ("two", data))
    assert [sentence.partition(": is missing")[0] for sentence in found] == [
        f"one: {missing}",
        f"two: {missing}",
    ]


@pytest.mark.parametrize(
    ("two", "expected"),
    [
        ({"vllm_gpu": [0]}, "two: vllm_gpu: has 1 GPU, and one 2"),
        ({"vllm_gpu_fraction": 0.5}, "two: vllm_gpu_fraction: is not that of one"),
        ({"nvidia_driver_branch": 580}, "two: nvidia_driver_branch: is not that of one"),
        ({"engine_group_head": "two"}, "two: engine_group_head: is two, and one"),
        ({"engine_group_port": 6380}, "two: engine_group_port: is not as one declares it"),
        (
            {
                "engine_group_members": {"two": "10.9.0.2", "three": "10.9.0.3"},
                "engine_group_head": "two",
            },
            "two: engine_group_members: has three 10.9.0.3, two 10.9.0.2, and one one 10.9.0.1, two"
            " 10.9.0.2: a host is in one group",
        ),
    ],
)
def test_members_that_differ_are_told(two: Data, expected: str) -> None:
    found = of_both(two=two)
    assert any(expected in sentence for sentence in found), found


@pytest.mark.parametrize("third", ["alpha", "three"])
def test_host_of_two_groups_is_told(third: str) -> None:
    """Whichever host is declared first, and whatever the hosts are called."""
    other = {"engine_group_members": {"two": "10.9.0.2", third: "10.9.0.3"}}
    other["engine_group_head"] = third  # type: ignore[assignment]
    declared = [("one", site_data()), ("two", site_data()), (third, site_data(**other))]
    (found,) = mistakes(*declared)
    assert found.startswith("two: engine_group_members: has one 10.9.0.1, two 10.9.0.2, and")
    assert "a host is in one group" in found


def test_vocabulary_that_its_padding_makes_divisible_is_no_mistake() -> None:
    shape = {"attention_heads": 24, "vocabulary_size": 192 * 100 - 63}
    assert of_both(vllm_gpu=[0, 1, 2], shape=shape) == []


def test_unequal_gpus_are_told() -> None:
    found = of_both({"vram_gpus_gib": [80, 80]}, {"vram_gpus_gib": [80, 96]})
    assert any(
        "two: vram_gpus_gib: is [80, 96], and that of one [80, 80]" in each for each in found
    )


def test_different_pins_are_told() -> None:
    other = site_data()
    other["models"][0]["files"] = [{"path": "model.safetensors", "sha256": "cd" * 32}]
    found = mistakes(("one", site_data()), ("two", other))
    assert found == [
        "two: models: for 'vllm' are not those of one, and members compute one model; declare the"
        " same model, with the same pins"
    ]


def test_member_that_is_no_host_is_told() -> None:
    (found,) = mistakes(("one", site_data()))
    assert "one: engine_group_members: has 'two', which is not a valid host" in found


def test_member_without_the_group_is_told() -> None:
    alone = {key: value for key, value in site_data().items() if "group" not in key}
    found = mistakes(("one", site_data()), ("two", alone))
    assert any("two: engine_group_members: is missing, and one has" in each for each in found)


@pytest.fixture
def gateway_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("LLMHOST_TEST_KEY", GATE)
    yield lambda server: {
        "gateway_upstreams": [{"name": server, "address": "192.0.2.10"}],
        "gateway_upstream_services": ["vllm"],
        "gateway_upstream_key": "env:LLMHOST_TEST_KEY",
        "gateway_upstream_name": "llm",
        "api_clients": [{"name": "app", "sha256": "ab" * 32}],
    }


def test_gateway_lists_the_head_alone(gateway_of: Any) -> None:
    hosts = (("one", site_data()), ("two", site_data()))
    assert mistakes(*hosts, ("door", gateway_of("one"))) == []
    (found,) = mistakes(*hosts, ("door", gateway_of("two")))
    assert "door: gateway_upstreams: has two, which only computes for one; list one" in found


@pytest.mark.parametrize(
    ("services", "right"),
    [
        (["vllm"], True),
        (["vllm", "docling"], True),
        (["docling", "vllm"], False),  # the first one answers at /
        (["docling"], False),
    ],
)
def test_servers_of_a_gateway_have_its_services(
    services: list[str], right: bool, gateway_of: Any
) -> None:
    server = {**site_data(), "services": services}
    engine = () if "vllm" in services else ("models", "vllm_")
    for option in [name for name in server if name.startswith(("engine_group", *engine))]:
        del server[option]
    found = [
        each for each in mistakes(("one", server), ("door", gateway_of("one"))) if "door" in each
    ]
    what = f"door: gateway_upstream_services: are vllm, and one has {', '.join(services)}"
    assert any(what in each for each in found) is not right and len(found) == (not right), found


def test_worker_that_answers_with_another_service_is_no_server_of_its_head(gateway_of: Any) -> None:
    hosts = [(name, site_data(services=["vllm", "docling"])) for name in ("one", "two")]
    (found,) = mistakes(*hosts, ("door", gateway_of("two")))
    assert "door: gateway_upstream_services: are vllm, and two has docling" in found


@pytest.mark.parametrize("address", ["192.0.2.2", "10.9.0.2"])
def test_gateway_that_names_a_worker_otherwise_is_told(gateway_of: Any, address: str) -> None:
    """It would send every second request to a host that answers none."""
    hosts = [(name, site_data(ssh_hostname=f"192.0.2.{n}")) for n, name in ((1, "one"), (2, "two"))]
    door = gateway_of("big")
    door["gateway_upstreams"] = [{"name": "big", "address": address}]
    (found,) = mistakes(*hosts, ("door", door))
    assert "gateway_upstreams: has big (two), which only computes for one; list one" in found
    door["gateway_upstreams"] = [{"name": "big", "address": address.replace(".2.2", ".2.1")}]
    if address == "192.0.2.2":
        assert mistakes(*hosts, ("door", door)) == []


def test_application_server_calls_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "llmhost-" + "5" * 64
    monkeypatch.setenv("LLMHOST_TEST_KEY", key)
    client = {"name": "app", "sha256": hashlib.sha256(key.encode()).hexdigest()}
    own: Data = {"api_clients": [client], "gateway_names": ["llm-server"]}
    members = [
        HostData(name, site_data(ssh_hostname=f"192.0.2.{n}", **own))
        for n, name in ((1, "one"), (2, "two"))
    ]
    app = {"app_server_api_key": "env:LLMHOST_TEST_KEY"}
    read_site([*members, HostData("app", app, ["app_servers"])])  # no mistake: one may be called
    with pytest.raises(SiteError) as error:
        named = app | {"app_server_llm_host": "two"}
        read_site([*members, HostData("app", named, ["app_servers"])])
    (found,) = error.value.sentences
    assert "app_server_llm_host: only computes for one, which answers requests; write one" in found


@pytest.mark.parametrize(
    ("interface", "address", "expected"),
    [
        ("eth1", "10.9.0.1", []),
        ("eth2", "10.9.0.1", ["the host has no interface eth2"]),
        ("eth1", "10.9.0.2", ["eth1 does not have the address 10.9.0.2"]),
    ],
)
def test_missing_interface_is_told(interface: str, address: str, expected: list[str]) -> None:
    from ipaddress import IPv4Address, IPv4Interface

    live = LiveAddress("eth1", IPv4Interface("10.9.0.1/24"), dynamic=False)
    state = NetworkState(macs={"lo": "", "eth1": "52:54:00:00:00:01"}, addresses=[live])
    found = [*not_in_group(interface, IPv4Address(address), state)]
    assert [text[: len(start)] for text, start in zip(found, expected, strict=True)] == expected


def test_lost_group_is_unavailable_for_a_while(tmp_path: Path) -> None:
    from llmhost.gateway.tree import NginxPaths, configuration

    del tmp_path
    texts = {
        name: "\n".join(
            str(file.data.decode())
            for file in configuration(member(name), NginxPaths())
            if file.path.endswith("nginx.conf")
        )
        for name in ("one", "two")
    }
    assert "error_page 502 =503" in texts["one"] and "error_page 502 =503" not in texts["two"]
    assert json.dumps("30") in texts["one"]


def test_drain_of_a_member_is_that_of_its_head() -> None:
    hosts = [site_data(), {"services": ["ollama"]}]
    assert [head_of(name, hosts) for name in ("one", "two", "three")] == ["one", "one", "three"]


def test_container_on_the_host_network_is_no_drift() -> None:
    text = compose_project(member("one")).services["vllm"]
    host = {"ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges:true"]}
    host |= {"LogConfig": {"Type": "local", "Config": {"max-size": "50m", "max-file": "3"}}}
    mounts = [
        {"Type": "volume", "Name": f"llmhost_{_cache(text)}", "Destination": "/var/cache/vllm"}
    ]
    found = Confinement(host, mounts, frozenset({"host"}), "10001:10001")
    assert on_host_network(text, "vllm") and additions("llmhost", "vllm", text, found) == []
    bridged = replace(found, networks=frozenset({"llmhost_default"}))
    assert additions("llmhost", "vllm", text, bridged) == [
        "has undeclared networks (llmhost_default)"
    ]


def _cache(text: str) -> str:
    (name,) = yaml.safe_load(text)["volumes"]
    return str(name)
