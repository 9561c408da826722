"""For which services a deploy starts a second container."""

from typing import Any

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.nvidia.state import Gpu
from llmhost.stack.project import compose_project
from llmhost.stack.stand_ins import with_stand_ins

MODEL = {"name": "m", "source": "https://example.org/m.gguf", "sha256": "a" * 64}
IMAGE = f"example.org/engine@sha256:{'b' * 64}"
APP = {
    "name": "web",
    "image": IMAGE,
    "container_port": 3000,
    "port": 3000,
    "health": ["true"],
    "routes": [{"path": "/"}],
    "volumes": {"uploads": "/srv/uploads"},
}


def _gpu(index: int, gib: int) -> Gpu:
    return Gpu(index, f"GPU-{index}", "", "", False, None, False, "", gib << 30)


def _found(gpus: list[Gpu], **data: Any) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Bytes by GPU of services with a stand-in, and why others have none."""
    settings = read_settings({"api_clients": [{"name": "a", "sha256": "c" * 64}], **data})
    project = with_stand_ins(compose_project(settings), settings, {}, gpus)
    needs = {name: dict(each.gpu_bytes) for name, each in project.stand_ins.items()}
    return needs, dict(project.alone)


def _llamacpp(gib: float = 0, **data: Any) -> dict[str, Any]:
    model = MODEL | ({"vram_gib": gib} if gib else {})
    return {"services": ["llamacpp"], "models": [model], "llamacpp_image": IMAGE, **data}


def test_service_on_processors_needs_no_gpu_memory() -> None:
    assert _found([], **_llamacpp()) == ({"llamacpp": {}}, {})


def test_gpu_with_room_for_two_gets_a_second_container() -> None:
    needs, alone = _found([_gpu(0, 24)], **_llamacpp(10, llamacpp_gpu_count=1))
    assert needs == {"llamacpp": {"GPU-0": 10 << 30}} and alone == {}


def test_gpu_with_room_for_one_interrupts_it_and_says_how_much_is_missing() -> None:
    needs, alone = _found([_gpu(0, 16)], **_llamacpp(10, llamacpp_gpu_count=1))
    assert needs == {}
    assert alone["llamacpp"].startswith("a second container needs 10.00 GiB of GPU 0, which has ")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (_llamacpp(stack_updates_beside=False), "stack_updates_beside is False"),
        (_llamacpp(10, llamacpp_gpu_count=1), "its GPUs are not known yet"),
        ({"apps": [APP]}, "two containers cannot share its data"),
        (
            {"apps": [{**APP, "volumes": {}, "needs": ["redis"]}], "services": ["redis"]},
            "it starts after redis",
        ),
    ],
)
def test_service_without_a_second_container_has_a_reason(data: dict[str, Any], why: str) -> None:
    needs, alone = _found([], **data)
    assert needs == {} and list(alone.values()) == [why]


def test_models_on_processors_need_their_estimate() -> None:
    data = _llamacpp(10, api_clients=[{"name": "a", "sha256": "c" * 64}])
    settings = read_settings(data)
    project = with_stand_ins(compose_project(settings), settings, {}, ())
    assert project.stand_ins["llamacpp"].memory_bytes == 10 << 30
