"""A change rolls out over two LLM servers behind one gateway while clients stream from it.

The servers run the real engine with a tiny model. The judge is the client's own count. The tests
continue from each other, in the order of the file.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmhost.gateway.keys import digest, new_key
from testbed import Client, Lan, Machine, demo_model
from testbed.engine import engine_archive, push_engine
from testbed.image_registry import ImageRegistry
from testbed.process import wait_until
from tests.integration.streaming import assert_unnoticed, streaming
from tests.programs import running

pytestmark = [pytest.mark.machines, pytest.mark.scale]
ROOT = Path(__file__).parents[2]
SERVERS = ["llm-1", "llm-2"]


@dataclass
class Site:
    """Two servers and their gateway; `data` are the servers' options."""

    home: Path
    lan: Lan
    client: Client
    key: str
    env: dict[str, str]
    data: dict[str, Any]
    gateway: dict[str, Any]
    registry: ImageRegistry

    @property
    def inventory(self) -> Path:
        return self.home / "site.py"

    def machine(self, name: str) -> Machine:
        return self.lan.machines[name]

    def declare(self, **changes: Any) -> None:
        """Write the inventory, with these options of the servers changed."""
        self.data |= changes
        hosts = {
            name: (name, {"ssh_config_file": str(self.machine(name).ssh_config)})
            for name in ["gate", *SERVERS]
        }
        servers = [hosts[name] for name in SERVERS]
        lines = [f"llm_servers = ({servers!r}, {self.data!r})"]
        lines += [f"gateways = ([{hosts['gate']!r}], {self.gateway!r})", ""]
        self.inventory.write_text("\n".join(lines))

    def command(self, program: str, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name(program)), *arguments]

    def run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = self.command(program, *arguments)
        return subprocess.run(
            command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=600
        )

    def roll(self, *options: str) -> "subprocess.CompletedProcess[str]":
        return self.run("llmhost", "roll", str(self.inventory), *options)

    def containers(self) -> dict[str, str]:
        """The container of each server's engine."""
        asked = "docker inspect -f '{{.Id}} {{.State.StartedAt}}' llmhost-llamacpp-1"
        return {name: self.machine(name).ssh(asked).stdout for name in SERVERS}

    def marks(self) -> list[str]:
        listed = self.machine("gate").ssh("cd /etc/nginx/llmhost; ls *.drained || true")
        return listed.stdout.split()

    @contextmanager
    def load(self, streams: int = 4, tokens: int = 400) -> Iterator[dict[str, Any]]:
        """Stream from the gateway during the block; the client's count is there after it."""
        url = f"http://{self.machine('gate').address}:8080"
        with streaming(self.client, url, self.key, streams, tokens) as count:
            yield count


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("roll")
    key, gateway_key = new_key(), new_key()
    with Lan.create("roll") as lan, ImageRegistry(lan.gateway, home / "registry") as registry:
        address = {name: lan.machine(name).address for name in ["gate", *SERVERS]}
        common = {
            "preflight_min_memory_gib": 0.5,
            "preflight_min_free_disk_gib": 1.0,
            "gateway_tls": "off",
        }
        data = {
            **common,
            "services": ["llamacpp"],
            "llamacpp_image": push_engine(registry),
            "docker_insecure_registries": [registry.name],
            "models": [demo_model.declared("tiny", home) | {"context_tokens": 4096}],
            "api_clients": [{"name": "gate", "sha256": digest(gateway_key), "scope": "admin"}],
        }
        gateway = {
            **common,
            "gateway_upstreams": [{"name": name, "address": address[name]} for name in SERVERS],
            "gateway_upstream_services": ["llamacpp"],
            "gateway_upstream_key": "env:GATEWAY_KEY",
            "gateway_upstream_tls": "off",
            "api_clients": [{"name": "app", "sha256": hashlib.sha256(key.encode()).hexdigest()}],
        }
        env = os.environ | {"GATEWAY_KEY": gateway_key}
        site = Site(home, lan, lan.client("outside"), key, env, data, gateway, registry)
        site.declare()
        for limit in ("llm_servers", "gateways"):
            done = site.run("pyinfra", str(site.inventory), "deploy.py", "-y", f"--limit={limit}")
            assert done.returncode == 0, done.stdout + done.stderr
        yield site


def test_converged_hosts_need_nothing(site: Site) -> None:
    before = site.containers()
    done = site.roll()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to do: llm-1, llm-2, gate" in done.stdout
    assert "Batch" not in done.stdout and site.containers() == before


def test_preview_shows_the_batches_and_changes_nothing(site: Site) -> None:
    before = site.containers()
    site.declare(llamacpp_memory_limit="2g")
    preview = site.roll("--dry-run", "--batch", "100%")
    assert preview.returncode == 2, preview.stdout + preview.stderr
    # Never both: one of them has to answer.
    assert "Batch 1: llm-1 (drained first)" in preview.stdout
    assert "Batch 2: llm-2 (drained first)" in preview.stdout
    assert site.containers() == before and site.marks() == []


def test_deploy_without_a_roll_cuts_streams(site: Site) -> None:
    """The count can fail: without draining, the same change is noticed."""
    site.declare(llamacpp_memory_limit="2100m", stack_updates_beside=False)
    with site.load() as count:
        time.sleep(3)
        done = site.run("llmhost", "deploy", str(site.inventory), "-y", "--limit=llm-1")
        assert done.returncode == 0, done.stdout + done.stderr
    assert count["failures"] and count["whole"] > 0, count


def test_new_engine_rolls_out_and_no_client_notices(site: Site) -> None:
    before = site.containers()
    other = site.registry.push("other-engine", "1", engine_archive())
    site.declare(llamacpp_image=other)
    with site.load() as count:
        time.sleep(3)
        done = site.roll()
    assert done.returncode == 0, done.stdout + done.stderr
    assert_unnoticed(count)
    after = site.containers()
    assert all(after[name] != before[name] for name in SERVERS)
    assert site.marks() == []
    assert site.run("llmhost", "plan", str(site.inventory)).returncode == 0


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_roll_leaves_one_drained_server_and_is_continued(
    site: Site, end: signal.Signals
) -> None:
    site.declare(llamacpp_memory_limit=f"{2200 + end}m")
    before = site.containers()
    command = site.command("llmhost", "roll", str(site.inventory))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
    with site.load() as count:
        with running(command, cwd=ROOT, env=site.env, text=True, **pipes) as roll:
            assert wait_until(lambda: site.marks() == ["llm-1.drained"], 120)
            locked = "! flock -n /run/llmhost/deploy.lock true"
            asked = site.machine("llm-1")
            assert wait_until(lambda: asked.ssh(locked, check=False).returncode == 0, 60)
            os.killpg(roll.pid, end)
            said, _ = roll.communicate(timeout=60)
        assert "Traceback" not in said
        if end is signal.SIGINT:
            assert roll.returncode == 1 and "interrupted" in said, said
            assert f"llmhost drain llm-1 {site.inventory} --undo" in said
        assert site.marks() == ["llm-1.drained"]
        plan = site.run("llmhost", "plan", str(site.inventory))
        assert "llm-1 is drained by llmhost roll" in plan.stdout
        again = site.roll()
    assert again.returncode == 0, again.stdout + again.stderr
    assert "llm-1 was left drained by an earlier roll" in again.stdout
    assert_unnoticed(count)
    assert site.marks() == []
    assert all(now != before[name] for name, now in site.containers().items())


def test_second_batch_fails_and_the_next_run_starts_with_it(site: Site) -> None:
    site.declare(llamacpp_memory_limit="2300m")
    lock = "systemd-run -q --unit=other flock /run/llmhost/deploy.lock sleep 600"
    site.machine("llm-2").ssh(lock)
    with site.load() as count:
        failed = site.roll()
        said = failed.stdout + failed.stderr
        assert failed.returncode == 1, said
        assert "llm-1: done" in said
        assert "llm-2: the deploy failed: see its output above" in failed.stderr
        assert f"llmhost rollback {site.inventory} llm-2" in said
        assert f"llmhost drain llm-2 {site.inventory} --undo" in said
        assert site.marks() == ["llm-2.drained"]
        first = site.containers()["llm-1"]
        site.machine("llm-2").ssh("systemctl stop other")
        again = site.roll()
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Nothing to do: llm-1, gate" in again.stdout
    assert site.containers()["llm-1"] == first
    assert_unnoticed(count)


def test_last_healthy_server_is_not_drained(site: Site) -> None:
    site.declare(llamacpp_memory_limit="2400m")
    site.machine("llm-2").ssh("docker stop llmhost-llamacpp-1")
    refused = site.roll("--limit", "llm-1")
    said = refused.stdout + refused.stderr
    assert refused.returncode == 1, said
    assert "llamacpp on llm-2 is not healthy" in refused.stderr
    assert site.marks() == []
    site.machine("llm-2").ssh("docker start llmhost-llamacpp-1")


def test_server_drained_by_hand_is_left_out(site: Site) -> None:
    drained = site.run("llmhost", "drain", "llm-2", str(site.inventory))
    assert drained.returncode == 0, drained.stdout + drained.stderr
    rolled = site.roll("--dry-run")
    assert "llm-2 (drift) was drained by hand and is left out" in rolled.stdout
    assert "llm-1 is the last server of gate that takes requests" in rolled.stderr
    assert rolled.returncode == 1
    undone = site.run("llmhost", "drain", "llm-2", str(site.inventory), "--undo")
    assert undone.returncode == 0, undone.stdout + undone.stderr


def test_stream_that_does_not_end_in_time_is_not_interrupted(site: Site) -> None:
    with site.load(streams=2, tokens=3500) as count:
        time.sleep(1)
        rolled = site.roll("--wait", "0")
        said = rolled.stdout + rolled.stderr
        assert rolled.returncode == 1, said
        assert "were still open after 0 s; it was not changed" in rolled.stderr
        assert site.marks() == ["llm-1.drained"]
        again = site.roll()
    assert again.returncode == 0, again.stdout + again.stderr
    assert count["failures"] == [], count
    assert count["longest_seconds"] > 1
