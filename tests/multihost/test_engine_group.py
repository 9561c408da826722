"""A model over two hosts: the real vLLM for CPUs with the real Ray, as rendered.

Two network namespaces stand for the hosts, with the rendered rules of the firewall, loaded by ufw.
On the network there are also a client and a host of another group.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmhost.gateway.keys import digest
from llmhost.inventory.reader import read_settings
from llmhost.operations.ufw import rule_files
from llmhost.settings import Settings
from llmhost.stack.egress import RULES, egress_files
from llmhost.system.files import File
from llmhost.system.ufw import AFTER_RULES, UfwState
from llmhost.tasks.firewall import gateway_openings, group_openings
from testbed.real_vllm import real_vllm, tiny_model
from tests.integration.local_gateway import local_gateway
from tests.multihost.member import Member, member, wait_for
from tests.multihost.network import INTERFACE, Place, guard, network
from tests.unit.vllm_site import hub_directory, site_of, started_as

pytestmark = pytest.mark.multihost

KEY = "llmhost-" + "5" * 64
# Without compilation, and with a cache that does not take most of the memory.
SMALL = ["--enforce-eager", "--kv-cache-memory-bytes", "268435456"]
START_SECONDS = 400
LOOPBACK = {"127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"}
PROMPT = "One, two,"


@dataclass(frozen=True)
class Group:
    """The members, the other hosts, and what one host alone answers."""

    head: Member
    worker: Member
    client: Place
    stranger: Place
    alone: str

    @property
    def places(self) -> tuple[Place, ...]:
        return self.head.place, self.worker.place

    def ask(self, tokens: int = 16, seconds: int = 120) -> Answer:
        """A completion through the gateway of the head, from the client."""
        body = {"model": "writer", "prompt": PROMPT, "max_tokens": tokens, "temperature": 0}
        done = self.client.run(
            *("curl", "--silent", "--include", "--max-time", str(seconds)),
            *("--header", f"Authorization: Bearer {KEY}"),
            *("--header", "Content-Type: application/json", "--data", json.dumps(body)),
            f"http://{self.head.place.address}:8080/v1/completions",
            timeout=seconds + 10,
        )
        return Answer.of(done.stdout)

    def is_up(self) -> bool:
        return self.head.is_healthy() and self.worker.is_healthy()

    def is_unavailable(self) -> bool:
        """Whether clients are asked to come back later."""
        answer = self.ask(seconds=3)
        return answer.status == 503 and answer.retry_after > 0


@dataclass(frozen=True)
class Answer:
    """The answer to a request; status 0: there was none in time."""

    status: int = 0
    retry_after: int = 0
    text: str = ""

    @classmethod
    def of(cls, output: str) -> Answer:
        head, _, body = output.replace("\r", "").partition("\n\n")
        if not head.startswith("HTTP/"):
            return cls()
        headers = dict(line.lower().split(": ", 1) for line in head.splitlines() if ": " in line)
        status = int(head.split()[1])
        text = json.loads(body)["choices"][0]["text"] if status == 200 else body
        return cls(status, int(headers.get("retry-after", 0)), text)


def data_of(model: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        **site_of(model, gpu=[0], extra_arguments=SMALL),
        "engine_group_members": {"head": "10.9.0.1", "worker": "10.9.0.2"},
        "engine_group_head": "head",
        "engine_group_interface": INTERFACE,
        "engine_group_token": "env:LLMHOST_TEST_GROUP",
        "gateway_tls": "off",
        "gateway_addresses": ["10.9.0.1"],
        "gateway_sources": ["10.9.0.0/24"],
        "firewall_ssh_sources": ["10.9.0.3"],
        "api_clients": [{"name": "test", "sha256": digest(KEY)}],
        "stack_egress": "deny",
        **changes,
    }


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    home = tmp_path_factory.mktemp("group")
    home.chmod(0o755)
    model = hub_directory(tiny_model(home / "qwen3"))
    for file in (home / "qwen3").iterdir():
        file.chmod(0o644)  # as in an image
    alone = text_of_one_host(model, home)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("LLMHOST_TEST_GROUP", "g" * 32)
        places = stack.enter_context(network("head", "worker", "client", "stranger"))
        settings = {name: read_settings(data_of(model), name=name) for name in ("head", "worker")}
        for name, each in settings.items():
            guard(places[name], ufw_files(each), home / f"ufw-{name}")
            limit_egress(places[name], each)
        head, worker = (
            stack.enter_context(member(places[name], each, home / name))
            for name, each in settings.items()
        )
        worker.start()  # it waits for the head
        head.start()
        with head.place.entered():
            stack.enter_context(local_gateway(data_of(model), home / "gateway", name="head"))
        found = Group(head, worker, places["client"], places["stranger"], alone)
        wait_for(found.is_up, START_SECONDS, head)
        yield found


def ufw_files(settings: Settings) -> list[tuple[str, bytes]]:
    rules = (*gateway_openings(settings), *group_openings(settings))
    texts = {path: Path(path).read_text() for path in AFTER_RULES.values()}
    return [(file.path, file.data) for file in rule_files(rules, UfwState(texts=texts))]


def limit_egress(place: Place, settings: Settings) -> None:
    """Load the rules of nftables that limit whom the engine connects to."""
    files = {each.path: each for each in egress_files(settings)}
    rules = files[RULES]
    assert isinstance(rules, File)
    load = ["ip", "netns", "exec", place.namespace, "nft", "-f", "-"]
    subprocess.run(load, input=rules.data, check=True)


def text_of_one_host(model: dict[str, Any], home: Path) -> str:
    """The answer of vLLM on one host, without a group."""
    command, environment = started_as(site_of(model, extra_arguments=SMALL), home, 18_000)
    url = "http://127.0.0.1:18000"
    with real_vllm(command, environment, url, home / "alone.log"):
        body = {"model": "writer", "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
        asked = ["curl", "-sS", "--fail", "-H", "Content-Type: application/json"]
        done = subprocess.run(
            [*asked, "-d", json.dumps(body), f"{url}/v1/completions"],
            capture_output=True,
            text=True,
            check=True,
        )
    return str(json.loads(done.stdout)["choices"][0]["text"])


def test_answers_are_those_of_one_host(group: Group) -> None:
    answer = group.ask()
    assert (answer.status, answer.text) == (200, group.alone)


def test_both_hosts_compute(group: Group) -> None:
    for each in (group.head, group.worker):
        assert "ray::RayWorker" in each.place.check("ss", "-Htlnp"), each.log[-2000:]


def test_nobody_but_members_reaches_a_port(group: Group) -> None:
    for each in (group.head, group.worker):
        listening = each.place.listening()
        outside = sorted(port for port, at in listening.items() if at - LOOPBACK)
        assert len(outside) > 5  # Ray's and PyTorch's
        for other in (group.client, group.stranger):
            assert other.reaches(each.place.address, sorted(listening)) <= {8080}
        (partner,) = [one for one in (group.head, group.worker) if one is not each]
        # PyTorch accepts only as many connections as it expects at most of its ports.
        reached = partner.place.reaches(each.place.address, outside)
        assert len(reached) > 5 and (6379 in reached or each is group.worker)


def test_api_is_reached_by_the_gateway_alone(group: Group) -> None:
    listening = group.head.place.listening()
    assert listening[8000] == {"127.0.0.1"} and 8000 not in group.worker.place.listening()
    assert group.worker.place.reaches(group.head.place.address, [8000]) == set()


def test_address_of_a_member_on_another_interface_is_refused(group: Group) -> None:
    """Only packets that arrive on the declared interface are of members."""
    place = group.head.place
    rules = place.check("iptables", "-S", "ufw-user-input").splitlines()
    accepting = [rule for rule in rules if group.worker.place.address in rule]
    assert accepting and all(f"-i {INTERFACE}" in rule for rule in accepting)


def test_engine_connects_to_members_alone(group: Group) -> None:
    stranger = group.stranger.address
    connect = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
    with group.stranger.listens(9):
        refused = group.worker.run("python3", "-c", connect, stranger, "9")
        assert "ConnectionRefusedError" in refused.stderr
        assert group.client.reaches(stranger, [9]) == {9}  # it listens
    to_head = group.worker.run("python3", "-c", connect, group.head.place.address, "6379")
    assert to_head.returncode == 0, to_head.stderr


def test_ray_answers_nobody_without_the_token(group: Group) -> None:
    ask = (
        "import sys; sys.path.insert(0, '/opt/llmhost/ray')\n"
        "from ray._raylet import GcsClient\n"
        f"client = GcsClient(address='{group.head.place.address}:6379')\n"
        "print(len(client.get_all_node_info(timeout=5)))\n"
    )
    assert group.worker.run("python3", "-c", ask).stdout.strip() == "2"
    for wrong in ("RAY_AUTH_TOKEN=" + "0" * 64, "RAY_AUTH_MODE=disabled"):
        refused = group.worker.run("env", wrong, "python3", "-c", ask)
        assert refused.returncode != 0 and "InvalidAuthToken" in refused.stderr, refused.stdout


def test_killed_worker_is_noticed_and_comes_back(
    group: Group, record_property: Callable[[str, object], None]
) -> None:
    answers: list[Answer] = []
    long = threading.Thread(target=lambda: answers.append(group.ask(tokens=450, seconds=60)))
    long.start()
    group.worker.kill()
    noticed = wait_for(group.is_unavailable, 15, group.head)
    record_property("noticed_seconds", noticed)
    assert noticed < 10
    long.join(10)
    assert answers and answers[0].status in (200, 500, 503)  # not left hanging
    wait_for(group.is_up, START_SECONDS, group.head)
    assert group.ask().text == group.alone


def test_worker_that_is_cut_off_is_noticed_and_comes_back(
    group: Group, record_property: Callable[[str, object], None]
) -> None:
    with group.worker.place.cut_off():
        noticed = wait_for(group.is_unavailable, 30, group.head)
    record_property("noticed_seconds", noticed)
    assert noticed < 20
    wait_for(group.is_up, START_SECONDS, group.head)
    assert group.ask().text == group.alone


def test_group_comes_back_when_its_head_was_off(group: Group) -> None:
    before = group.worker.starts
    group.head.stop()
    wait_for(lambda: group.worker.starts > before, 40, group.worker)
    group.head.start()
    wait_for(group.is_up, START_SECONDS, group.head)
    assert group.ask().text == group.alone
