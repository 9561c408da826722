"""Limits of containers grow with their host."""

from dataclasses import replace

import pytest
import yaml

from llmhost.docker.compose import Limits, plan
from llmhost.facts.system import HostCapacity
from llmhost.inventory.reader import read_settings
from llmhost.stack.limits import Capacity, limits, memory_limit
from llmhost.stack.project import compose_project
from llmhost.units import GIB, bytes_of, docker_size
from tests.unit.test_compose import CONVERGED, PROJECT, RUNNING

SITE = {"services": ["redis", "qdrant"], "api_clients": [{"name": "a", "sha256": "ab" * 32}]}
LARGE = Capacity(192, 1007 * GIB)


@pytest.mark.parametrize(("threads", "pids"), [(0, 512), (2, 512), (16, 512), (192, 6144)])
def test_processes_grow_with_threads(threads: int, pids: int) -> None:
    assert limits(None, Capacity(threads), hardened=False).pids == pids


@pytest.mark.parametrize(
    ("gib", "limit"),
    [(0, ""), (0.9, ""), (1.9, "1g"), (3.8, "3g"), (15.5, "15g"), (62.7, "57g"), (1007, "907g")],
)
def test_memory_leaves_some_for_the_host(gib: float, limit: str) -> None:
    assert memory_limit(Capacity(memory_bytes=int(gib * GIB))) == limit


def test_kernel_that_takes_a_little_more_changes_nothing() -> None:
    before, after = (Capacity(8, int(size * GIB)) for size in (62.72, 62.68))
    assert limits(None, before, hardened=True) == limits(None, after, hardened=True)


def test_declared_limit_wins() -> None:
    assert limits("4g", LARGE, hardened=True).memory == 4 * GIB


def test_without_hardening_only_what_is_declared_is_limited() -> None:
    assert limits(None, LARGE, hardened=False) == Limits(pids=6144)


@pytest.mark.parametrize(("level", "shares"), [("baseline", 512), ("off", None)])
def test_compose_files_have_the_limits(level: str, shares: int | None) -> None:
    site = {**SITE, "system_hardening": level, "qdrant_memory_limit": None}
    project = compose_project(read_settings(site), {}, LARGE)
    service = yaml.safe_load(project.services["qdrant"])["services"]["qdrant"]
    assert (service["pids_limit"], service.get("cpu_shares")) == (6144, shares)
    assert service.get("mem_limit") == ("907g" if shares else None)
    assert project.limits["qdrant"].memory == (907 * GIB if shares else 0)
    redis = yaml.safe_load(project.services["redis"])["services"]["redis"]
    assert redis["mem_limit"] == "1g"


@pytest.mark.parametrize(
    ("cpus", "told"),
    [(("512",), False), ((), False), (("1024",), True), (("500000000", "512"), True)],
)
def test_priority_that_was_changed_is_drift(cpus: tuple[str, ...], told: bool) -> None:
    project = replace(PROJECT, limits={"engine": Limits(cpus=("512",))})
    found = replace(CONVERGED, containers=(replace(RUNNING, limits=Limits(cpus=cpus)),))
    reasons = plan(project, found).reasons
    assert any("processors" in reason for reason in reasons) is told


def test_capacity_is_read() -> None:
    assert HostCapacity().process(["16", "65842012"]) == Capacity(16, 65842012 * 1024)


@pytest.mark.parametrize("size", ["16g", "1500m", "3k"])
def test_size_is_written_as_it_is_read(size: str) -> None:
    assert docker_size(bytes_of(size)) == size
