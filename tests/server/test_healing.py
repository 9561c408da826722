"""The units that heal containers on a provisioned server."""

from typing import Any

from llmhost.checks.applies import does_not_apply
from llmhost.settings import Settings


def test_timer_runs_where_it_is_declared(host: Any, settings: Settings) -> None:
    wanted = settings.healing.enabled and bool(settings.services)
    asked = [host.run(f"systemctl {ask} llmhost-heal.timer") for ask in ("is-active", "is-enabled")]
    assert [answer.succeeded for answer in asked] == [wanted, wanted]


def test_containers_are_healed_as_soon_as_docker_runs(host: Any, settings: Settings) -> None:
    if not (settings.healing.enabled and settings.services):
        does_not_apply("healing_enabled is off, or no service is declared")
    show = "systemctl show llmhost-heal.service -P"
    for dependency in ("WantedBy", "After"):
        assert "docker.service" in host.check_output(f"{show} {dependency}").split(), dependency


def test_last_run_succeeded(host: Any, settings: Settings) -> None:
    if not (settings.healing.enabled and settings.services):
        does_not_apply("healing_enabled is off, or no service is declared")
    shown = host.check_output("systemctl show -P Result llmhost-heal.service")
    assert shown == "success"
