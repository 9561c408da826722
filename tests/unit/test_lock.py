"""Each host of a run is held for itself."""

from dataclasses import dataclass

import pytest
from pyinfra.context import ctx_host

from llmhost.operations import lock


@dataclass(eq=False)
class _Host:
    name: str
    state: None = None


def test_no_host_is_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_problems", {})
    monkeypatch.setattr(lock, "hold", lambda state, host, directory: [host.name])
    # So many that some of them share a place in a table.
    hosts = [_Host(f"host-{number}") for number in range(64)]
    for here in hosts:
        with ctx_host.use(here):
            assert lock.held_once("/var/lib/llmhost") == [here.name]
