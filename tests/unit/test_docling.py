"""docling-serve as a service of the stack."""

from typing import Any

import yaml

from llmhost.settings.reader import read_settings
from llmhost.stack import compose_project


def _service(**options: Any) -> dict[str, Any]:
    clients = [{"name": "test", "sha256": "cd" * 32}]
    settings = read_settings({"services": ["docling"], "api_clients": clients, **options})
    text = compose_project(settings).services["docling"]
    service: dict[str, Any] = yaml.safe_load(text)["services"]["docling"]
    return service


def test_it_never_asks_a_hub_or_a_remote_model() -> None:
    environment = _service()["environment"]
    assert environment["HF_HUB_OFFLINE"] == environment["TRANSFORMERS_OFFLINE"] == "1"
    assert environment["DOCLING_SERVE_ENABLE_REMOTE_SERVICES"] == "false"


def test_it_runs_on_the_cpu_unless_it_is_given_a_gpu() -> None:
    assert _service()["environment"]["DOCLING_DEVICE"] == "cpu"
    assert _service(docling_gpu=0)["environment"]["DOCLING_DEVICE"] == "cuda"


def test_clients_wait_no_longer_than_declared() -> None:
    assert _service(docling_wait_seconds=600)["environment"]["DOCLING_SERVE_MAX_SYNC_WAIT"] == "600"
