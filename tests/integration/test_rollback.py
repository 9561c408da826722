"""Back to an earlier deploy, and rid of what none needs: on a machine of its own, in this order."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed import Client, Lan, Machine
from tests.integration.test_demo import ROOT, run_program, values

pytestmark = [pytest.mark.machines, pytest.mark.scale]
INVENTORY = "inventory/demo.py"
BODY = '{"model": "tiny", "prompt": "Hi", "max_tokens": 4}'


@dataclass(frozen=True)
class Site:
    """A demo whose inventory the tests change by its site.json."""

    home: Path
    env: dict[str, str]
    server: Machine
    client: Client

    def run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return run_program(self.env, program, *arguments)

    def deploy(self, **data: Any) -> None:
        """Deploy with these options besides the demo's own."""
        done = self.attempt(**data)
        assert done.returncode == 0, done.stderr

    def attempt(self, **data: Any) -> "subprocess.CompletedProcess[str]":
        """The same for a deploy that may fail."""
        path = self.home / "site.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"data": data}))
        return self.run("pyinfra", INVENTORY, "deploy.py", "-y")

    def rollback(self, *options: str) -> "subprocess.CompletedProcess[str]":
        return self.run("llmhost", "rollback", INVENTORY, "llm-demo", *options)

    def prune(self, *options: str) -> "subprocess.CompletedProcess[str]":
        return self.run("llmhost", "prune", INVENTORY, "llm-demo", *options)

    def status(self, key: str) -> str:
        """What a client with this key is answered."""
        command = ["curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "-d", BODY]
        headers = ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
        url = f"{self.env['LLMHOST_URL']}/v1/completions"
        return self.client.run([*command, *headers, url]).stdout

    def image(self) -> str:
        format = "{{.Config.Image}} {{.Image}} {{.State.Health.Status}}"
        command = f"docker inspect -f '{format}' llmhost-llamacpp-1"
        return self.server.ssh(command).stdout.strip()

    def files(self) -> str:
        """A digest of the files of stack and gateway, but for the one that tells the digest."""
        find = "find /opt/llmhost /etc/nginx/llmhost /etc/nginx/nginx.conf ! -name status.conf"
        return self.server.ssh(f"{find} -printf '%p %U %m ' -type f -exec sha256sum {{}} +").stdout


def client(name: str, key: str) -> dict[str, str]:
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("rollback") / "demo"
    env = {"LLMHOST_DEMO": str(home)}
    demo = [sys.executable, "-m", "testbed.demo", "--model", "tiny"]
    try:
        up = subprocess.run(demo, cwd=ROOT, env=os.environ | env, capture_output=True, text=True)
        assert up.returncode == 0, up.stdout + up.stderr
        lan = Lan.open(home / "lan")
        env |= values(home / "env")
        yield Site(home, env, lan.machines["llm-demo"], lan.clients["client"])
    finally:
        subprocess.run([*demo, "--down"], cwd=ROOT, env=os.environ | env, check=True)


def test_server_with_one_deploy_has_no_way_back(site: Site) -> None:
    refused = site.rollback()
    assert refused.returncode == 1
    assert "llm-demo: no earlier deploy is kept" in refused.stderr


def test_stack_and_gateway_return_to_the_deploy_before(site: Site) -> None:
    key = site.env["LLMHOST_API_KEY"]
    first, image = site.files(), site.image()
    clients = [client("demo", key), client("other", "other-key")]
    # Another configuration of nginx and of the service.
    site.deploy(api_clients=clients, llamacpp_memory_limit="2g")
    second = site.files()
    assert second != first
    returned = site.rollback()
    assert returned.returncode == 0, returned.stdout + returned.stderr
    assert "stack and gateway are back at" in returned.stdout
    assert site.files() == first and site.image() == image
    assert site.status(key) == "200" and site.status("other-key") == "401"
    plan = json.loads(site.run("llmhost", "plan", INVENTORY, "--json").stdout)
    components = {step["component"] for step in plan["hosts"][0]["steps"]}
    assert {"Gateway", "Stack", "Receipt"} <= components
    history = site.run("llmhost", "history", INVENTORY, "llm-demo", "--json").stdout
    run = json.loads(history)["runs"][-1]
    assert run["result"] == "done" and run["changed"][0].startswith("Roll back to the deploy of")


def test_next_deploy_goes_by_the_inventory_again(site: Site) -> None:
    data = json.loads((site.home / "site.json").read_text())["data"]
    site.deploy(**data)
    assert site.run("llmhost", "plan", INVENTORY).returncode == 0


def test_failed_deploy_leads_back_to_the_last_complete_one(site: Site) -> None:
    data = json.loads((site.home / "site.json").read_text())["data"]
    before, image = site.files(), site.image()
    wrong = {"llamacpp_extra_arguments": ["--no-such-option"], "stack_updates_beside": False}
    failed = site.attempt(**data, **wrong)
    assert failed.returncode == 1 and site.files() != before, failed.stderr
    time = json.loads(site.server.ssh("cat /var/lib/llmhost/receipt.json").stdout)["time"]
    assert time in site.rollback("--list").stdout
    returned = site.rollback()
    assert returned.returncode == 0, returned.stdout + returned.stderr
    assert f"stack and gateway are back at {time}" in returned.stdout
    assert site.files() == before and site.image() == image
    assert time not in site.rollback("--list").stdout
    site.deploy(**data)


def test_key_that_was_taken_away_since_stays_so(site: Site) -> None:
    key = site.env["LLMHOST_API_KEY"]
    site.deploy(api_clients=[client("demo", key)])
    returned = site.rollback()
    assert returned.returncode == 0, returned.stdout + returned.stderr
    assert "other" in site.server.ssh("cat /etc/nginx/llmhost/clients.map").stdout
    digest = client("other", "other-key")["sha256"]
    assert digest not in site.server.ssh("cat /etc/nginx/llmhost/keys.map").stdout


def test_what_is_kept_can_be_read_by_root_alone(site: Site) -> None:
    listed = site.server.ssh("stat -c '%U %a' /var/lib/llmhost/deploys /var/lib/llmhost/deploys/*")
    assert set(listed.stdout.split("\n")) == {"root 700", "root 600", ""}


def test_configuration_that_nginx_refuses_does_not_replace_the_present_one(site: Site) -> None:
    break_it = """
    cd /var/lib/llmhost/deploys && name=$(ls | sort | head -n 1) && mkdir /tmp/broken &&
    tar -xpf "$name" -C /tmp/broken && echo 'nonsense;' >>/tmp/broken/etc/nginx/nginx.conf &&
    cp "$name" /root/whole.tar && cd /tmp/broken && tar -cpf "/var/lib/llmhost/deploys/$name" * &&
    rm -rf /tmp/broken && echo "$name"
    """
    name = site.server.ssh(break_it).stdout.strip()
    before = site.files()
    listed = site.rollback("--list").stdout
    steps = max(int(line.split("│")[1]) for line in listed.splitlines() if "T" in line[:30])
    refused = site.rollback(str(steps))
    assert refused.returncode == 1 and "nonsense" in refused.stderr, refused.stderr
    assert site.files() == before
    site.server.ssh(f"mv /root/whole.tar /var/lib/llmhost/deploys/{name}")


def test_deploy_whose_image_is_gone_is_not_returned_to(site: Site) -> None:
    receipts = "for each in /var/lib/llmhost/deploys/*; do tar -xOf $each receipt.json; done"
    assert "llmhost/llamacpp:" in site.server.ssh(receipts).stdout
    image = site.image().split()[0]
    site.server.ssh(f"docker tag {image} keep:1 && docker rmi {image}")
    refused = site.rollback()
    assert refused.returncode == 1 and f"were removed or replaced: {image}" in refused.stderr
    site.server.ssh(f"docker tag keep:1 {image} && docker rmi keep:1")


def test_prune_shows_first_and_frees_only_what_is_ours(site: Site) -> None:
    superfluous = "FROM scratch\\nLABEL llmhost.inputs=old\\nCOPY pad /pad\\n"
    site.server.ssh(
        "mkdir -p /tmp/old && head -c 3000000 /dev/urandom >/tmp/old/pad &&"
        f" printf '{superfluous}' >/tmp/old/Dockerfile &&"
        " docker buildx build -q -t llmhost/old:0 /tmp/old && "
        " printf 'FROM scratch\\nCOPY pad /other\\n' >/tmp/old/Dockerfile &&"
        " docker buildx build -q -t site/own:1 /tmp/old && rm -rf /tmp/old"
    )
    listed = "docker image ls --format '{{.Repository}}:{{.Tag}}' | sort"
    before = set(site.server.ssh(listed).stdout.split())
    shown = site.prune()
    assert shown.returncode == 0 and "llmhost/old:0" in shown.stdout
    assert "about 3 MiB can be freed" in shown.stdout and "add --yes" in shown.stdout
    assert set(site.server.ssh(listed).stdout.split()) == before
    freed = site.prune("--yes")
    assert freed.returncode == 0, freed.stdout + freed.stderr
    assert before - set(site.server.ssh(listed).stdout.split()) == {"llmhost/old:0"}
    assert "nothing to remove" in site.prune("--yes").stdout
