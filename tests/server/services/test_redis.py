"""Redis, from inside its container."""

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.services.inside import Inside
from llmhost.services.redis import RedisOptions
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def options(settings: Settings) -> RedisOptions:
    if "redis" not in settings.services:
        does_not_apply("the service redis is not declared")
    options = settings.options("redis")
    assert isinstance(options, RedisOptions)
    return options


@pytest.fixture(scope="module")
def redis(host: Host, settings: Settings, options: RedisOptions) -> Inside:
    return Inside(host, settings, "redis")


def test_value_is_kept_and_expires(redis: Inside) -> None:
    redis.run("redis-cli", "set", "llmhost:check", "kept", "ex", "60")
    assert redis.run("redis-cli", "get", "llmhost:check") == "kept"
    assert 0 < int(redis.run("redis-cli", "ttl", "llmhost:check")) <= 60


def test_memory_limit_is_the_declared_one(redis: Inside, options: RedisOptions) -> None:
    assert redis.run("redis-cli", "config", "get", "maxmemory").split() == [
        "maxmemory",
        str(options.memory_mib * 1024**2),
    ]
    policy = redis.run("redis-cli", "config", "get", "maxmemory-policy")
    assert policy.split() == ["maxmemory-policy", "allkeys-lru"]


def test_data_is_written_to_the_disk_only_if_declared(redis: Inside, options: RedisOptions) -> None:
    saved = redis.run("redis-cli", "config", "get", "appendonly").split()
    assert saved == ["appendonly", "yes" if options.persistent else "no"]
