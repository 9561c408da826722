"""What Redis answers as llmhost starts it: Debian's server and command-line client."""

from collections.abc import Iterator

import pytest

from llmhost.inventory.reader import read_settings
from testbed.stores import store_archive
from tests.engines.container import Container, EngineImage, container
from tests.engines.contract import Engine

OPTIONS = {"redis_memory_mib": 16}


@pytest.fixture(scope="module", params=[False, True], ids=["cache", "persistent"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    clients = [{"name": "test", "sha256": "ab" * 32}]
    data = {"services": ["redis"], "api_clients": clients, "redis_persistent": request.param}
    place = tmp_path_factory.mktemp("redis")
    with container(
        read_settings(data | OPTIONS), "redis", EngineImage(store_archive()), place
    ) as found:
        yield found


@pytest.fixture(scope="module")
def engine(server: Container) -> Engine:
    lines = server.run("redis-cli", "info", "server").stdout.splitlines()
    about = dict(line.split(":", 1) for line in lines if ":" in line)
    return Engine("Redis", about["redis_version"].strip(), "real", server.url)


def cli(server: Container, *words: str) -> str:
    return server.run("redis-cli", *words).stdout.strip()


def test_value_is_kept_and_expires(server: Container, engine: Engine) -> None:
    assert cli(server, "set", "name", "value", "px", "60000") == "OK"
    assert cli(server, "get", "name") == "value"
    assert 0 < int(cli(server, "pttl", "name")) <= 60000
    assert cli(server, "pexpire", "name", "1") == "1"
    assert cli(server, "get", "name") == ""


def test_mistake_is_an_error(server: Container, engine: Engine) -> None:
    assert cli(server, "lpush", "list", "1") == "1"
    assert cli(server, "get", "list").startswith("WRONGTYPE")
    assert cli(server, "nonsense").startswith("ERR unknown command")


def test_oldest_data_makes_room(server: Container, engine: Engine) -> None:
    assert cli(server, "config", "get", "maxmemory").split() == ["maxmemory", str(16 * 2**20)]
    fill = "for i = 1, 40 do redis.call('set', 'fill' .. i, string.rep('x', 2^20)) end"
    assert cli(server, "eval", fill, "0") == ""
    assert 0 < int(cli(server, "dbsize")) < 40
    evicted = server.run("redis-cli", "info", "stats").stdout
    assert "evicted_keys:0\r" not in evicted and "evicted_keys:" in evicted
    assert cli(server, "flushall") == "OK"


def test_data_is_on_disk_if_declared(server: Container, engine: Engine) -> None:
    persistent = "--appendonly" in server.declared["command"]
    assert cli(server, "set", "kept", "value") == "OK"
    files = [path for path in (server.root / "srv/data").rglob("*") if path.is_file()]
    assert bool(files) is persistent


def test_health_check_passes(server: Container, engine: Engine) -> None:
    assert server.is_healthy()
