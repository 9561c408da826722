"""Bodies that nginx has on disk when it ends: it removes those of requests that have ended only."""

import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from llmhost.gateway.tree import STATIC
from testbed.process import wait_until
from tests.doubles.engine import Engine
from tests.integration.local_gateway import free_ports, local_gateway
from tests.integration.test_models import APP, inventory, spooled

pytestmark = pytest.mark.machines
BODIES = Path("var/lib/nginx/body")


def remove(root: Path, *options: str) -> None:
    subprocess.run(["systemd-tmpfiles", f"--root={root}", *options], check=True)


def test_body_is_removed_at_the_next_start_of_the_host(tmp_path: Path) -> None:
    rules, body = tmp_path / "etc/tmpfiles.d/llmhost-gateway.conf", tmp_path / BODIES / "0000000001"
    for path in (rules, body):
        path.parent.mkdir(parents=True)
    rules.write_text((STATIC / "bodies.tmpfiles").read_text())
    body.write_text("a prompt")
    for options in (["--remove"], ["--clean"], ["--create"]):
        remove(tmp_path, *options)
        assert body.exists()  # a request may still have it
    remove(tmp_path, "--remove", "--boot")
    assert not body.exists() and body.parent.is_dir()


def test_nginx_leaves_what_a_request_had_when_it_ended(tmp_path: Path) -> None:
    """Without it, there would be no need of such rules."""
    body = {"model": "brain", "stream": True, "interval": 0.2, "chunks": 100}

    def ask(url: str) -> None:
        headers = {"Authorization": f"Bearer {APP}"}
        with suppress(httpx.HTTPError):
            large = {**body, "prompt": "x" * 500_000}
            httpx.post(f"{url}/v1/chat/completions", json=large, headers=headers, timeout=60)

    with Engine(free_ports(1)[0]) as engine:
        data = inventory(engine.port, free_ports(9)[-1])
        with local_gateway(data, tmp_path / "nginx") as gateway:
            asking = threading.Thread(target=ask, args=[gateway.url])
            asking.start()
            assert wait_until(lambda: bool(engine.requests), 20)
            [left] = map(Path, spooled(gateway))
        asking.join(20)
    assert left.stat().st_size > 500_000
    left.unlink()
