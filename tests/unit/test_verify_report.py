"""The last lines of `llmhost verify`, and the marks by which doubles are told from hardware."""

import hashlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmhost.checks.gateway_client import Door, door_of, operators_key
from llmhost.checks.nvidia import Nvidia
from llmhost.checks.report import summary
from llmhost.cli import verify
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site_reader import no_rules
from llmhost.verify.report import WAITING, Check, LeftOut, Record, Server, Started, unproven
from tests.doubles.nvidia.hardware import PROFILES


@dataclass
class Report:
    """As much of pytest's report as counts."""

    user_properties: list[tuple[str, str]] = field(default_factory=list)
    longrepr: object = None


@pytest.mark.parametrize(
    ("name", "address", "declared", "url", "to"),
    [
        ("llm-1", "10.0.0.1", {}, "https://llm-1:8443", "llm-1:8443:10.0.0.1:8443"),
        # No certificate has such a name; the host's own has its addresses.
        ("llm_1", "10.0.0.1", {}, "https://10.0.0.1:8443", "10.0.0.1:8443:10.0.0.1:8443"),
        ("llm-1", "fd00::5", {}, "https://llm-1:8443", "llm-1:8443:[fd00::5]:8443"),
        ("fd00::5", "fd00::5", {}, "https://[fd00::5]:8443", "[fd00::5]:8443:[fd00::5]:8443"),
        (
            *("llm_1", "10.0.0.1", {"gateway_names": ["llm.example"]}),
            *("https://llm.example:8443", "llm.example:8443:10.0.0.1:8443"),
        ),
    ],
)
def test_gateway_is_called_by_a_name_of_its_certificate(
    name: str, address: str, declared: dict[str, object], url: str, to: str
) -> None:
    settings = read_settings({"gateway_port": 8443, **declared}, no_rules, name)
    door = door_of(name, address, settings)
    assert isinstance(door, Door) and door.url == url
    assert door.curl[:2] == ("--connect-to", to)


def passed(proof: str | None = None) -> Report:
    return Report([("proof", proof)] if proof else [])


def skipped(reason: str) -> Report:
    return Report(longrepr=("test_x.py", 7, f"Skipped: {reason}"))


def told(*reports: Report) -> list[str]:
    done = [each for each in reports if each.longrepr is None]
    left = [each for each in reports if each.longrepr is not None]
    return list(summary(done, left))  # type: ignore[arg-type]


def test_hardware_doubles_and_what_was_not_checked_are_told_apart() -> None:
    lines = told(
        passed("proven on hardware"),
        passed("proven on a double"),
        passed("proven on a double"),
        passed(),
        skipped("not checked: LLMHOST_API_KEY is not set"),
        skipped("the service qdrant is not declared"),
        skipped("the service qdrant is not declared"),
    )
    assert lines == [
        "GPU: 1 proven on hardware, 2 proven on a double; without a GPU: 1 proven; not checked: 3",
        "  not checked (1): LLMHOST_API_KEY is not set",
        "  not checked (2): the service qdrant is not declared",
    ]


def test_a_gpu_that_nvml_does_not_name_proves_nothing() -> None:
    nobody = Nvidia(pci=("0000:01:00.0",), wsl=False, nvml={"error": "Driver Not Loaded"})
    lines = told(passed(nobody.proof))
    assert lines[0].startswith("GPU: 0 proven on hardware, 0 proven on a double;")
    assert lines[1] == "  not checked (1): NVML does not report what the GPUs are"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_double_of_a_gpu_says_so_by_its_name(profile: str) -> None:
    names = [{"name": gpu.product} for gpu in PROFILES[profile].gpus]
    double = Nvidia(pci=(), wsl=False, nvml={"gpus": names})
    assert double.proof == ("proven on a double" if names else nobody_proof())
    real = Nvidia(pci=(), wsl=False, nvml={"gpus": [{"name": "NVIDIA H200"}, *names]})
    assert (real.proof == "proven on hardware") is not bool(names)


def nobody_proof() -> str:
    return Nvidia(pci=(), wsl=False).proof


def ran(host: str, outcome: str = "passed") -> list[Record]:
    check = Check(host, "gateway", "gateway.x", "X", outcome)  # type: ignore[arg-type]
    return [Started(host, "gateway", "X"), check]


def test_host_is_unproven_if_a_check_failed_or_never_ended() -> None:
    """A process of pytest that is killed leaves a check without a result; a host without an answer
    has no failed check of its own kind (tests/server/recorder.py)."""
    records = [
        *(*ran("good"), Started("good", WAITING, "boots"), Started("good", "gateway", "Y")),
        *(LeftOut("good"), *ran("good", "not checked")),
        *ran("bad", "failed"),
        *(*ran("killed"), Started("killed", "gateway", "Y")),
        *(Server("silent", answers=False), *ran("silent", "not checked")),
    ]
    assert unproven(records) == {"bad", "killed", "silent"}


def test_key_of_a_client_of_the_gateway_is_not_asked_for_at_its_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Servers behind a gateway admit the gateway's key alone: with that of a client, a verification
    of the whole site, and so a roll, would never succeed."""
    app, gate, nobody = (hashlib.sha256(each.encode()).hexdigest() for each in ("app", "gate", "x"))
    hosts = [
        {"api_clients": [{"name": "app", "sha256": app, "previous_sha256": nobody}]},
        {"api_clients": ({"name": "gate", "sha256": gate},)},
        {"api_clients": "damaged"},
        {},
    ]
    inventory = [SimpleNamespace(data=SimpleNamespace(dict=lambda own=own: own)) for own in hosts]
    known = verify.client_keys(cast(Any, inventory))
    assert known == sorted([app, gate, nobody])
    client = {"name": "gate", "sha256": gate}
    server = read_settings({"services": ["redis"], "api_clients": [client]})
    for key, reason in (("app", "of other hosts only"), ("", "is not set")):
        monkeypatch.setenv("LLMHOST_API_KEY", key)
        with pytest.raises(pytest.skip.Exception, match=reason):
            operators_key(server, known)
    for key in ("gate", "mistyped"):  # the check reports the second one
        monkeypatch.setenv("LLMHOST_API_KEY", key)
        assert operators_key(server, known) == key
