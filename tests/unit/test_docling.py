"""docling-serve as a service of the stack."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.services.docling import SERVICE
from llmhost.stack.project import compose_project, service_images
from tests.unit.profile_sites import COMMIT, locked_profile

ROOT = Path(__file__).parents[2]


def _service(*devices: str, **options: Any) -> dict[str, Any]:
    clients = [{"name": "test", "sha256": "cd" * 32}]
    settings = read_settings({"services": ["docling"], "api_clients": clients, **options})
    text = compose_project(settings, {"docling": devices}).services["docling"]
    service: dict[str, Any] = yaml.safe_load(text)["services"]["docling"]
    return service


def test_it_never_asks_a_hub_or_a_remote_model() -> None:
    environment = _service()["environment"]
    assert environment["HF_HUB_OFFLINE"] == environment["TRANSFORMERS_OFFLINE"] == "1"
    assert environment["DOCLING_SERVE_ENABLE_REMOTE_SERVICES"] == "false"


def test_it_runs_on_the_cpu_unless_it_is_given_a_gpu() -> None:
    assert _service()["environment"]["DOCLING_DEVICE"] == "cpu"
    given = _service("nvidia.com/gpu=GPU-0", docling_gpu_count=1)
    assert given["environment"]["DOCLING_DEVICE"] == "cuda"


def test_clients_wait_no_longer_than_declared() -> None:
    assert _service(docling_wait_seconds=600)["environment"]["DOCLING_SERVE_MAX_SYNC_WAIT"] == "600"


def test_formulas_are_read_by_the_declared_model(tmp_path: Path) -> None:
    preset = "DOCLING_SERVE_DEFAULT_CODE_FORMULA_PRESET"
    assert preset not in _service()["environment"]
    settings = read_settings(locked_profile("rag-offline", tmp_path))
    text = compose_project(settings).services["docling"]
    assert yaml.safe_load(text)["services"]["docling"]["environment"][preset] == "codeformulav2"


def test_answers_come_early_and_no_telemetry_is_sent() -> None:
    environment = _service()["environment"]
    assert environment["DOCLING_SERVE_SYNC_POLL_INTERVAL"] == "1"
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"


def test_container_is_healthy_only_when_its_models_are_loaded() -> None:
    assert "5001/ready" in _service()["healthcheck"]["test"][-1]


def test_only_administrators_have_it_fetch_and_send() -> None:
    scopes = {route.path: route.scope for route in SERVICE.routes}
    for task in ("convert", "chunk/hybrid", "chunk/hierarchical"):
        for wait in ("", "/async"):
            assert scopes[f"/v1/{task}/file{wait}"] == "inference"
            assert scopes[f"/v1/{task}/source{wait}"] == "admin"
    assert scopes["/v1/status/poll/{task_id}"] == scopes["/v1/result/{task_id}"] == "inference"


def test_chunks_of_the_offline_check_need_no_model_that_is_not_declared() -> None:
    conversion, chunks = SERVICE.requests(())
    assert conversion == SERVICE.request(())
    assert chunks.path == "/v1/chunk/hierarchical/source"


def test_further_models_are_baked_under_the_names_that_docling_knows(tmp_path: Path) -> None:
    settings = read_settings(locked_profile("rag-offline", tmp_path))
    (image,) = [each for each in service_images(settings) if each.service == "docling"]
    (listed,) = [file.data.decode() for file in image.build_files if file.path == "models"]
    assert listed.splitlines()[:2] == [
        f"/models/formulas docling-project/CodeFormulaV2 {COMMIT}",
        f"/models/pictures HuggingFaceTB/SmolVLM-256M-Instruct {COMMIT}",
    ]
    assert [model.model for model in image.models] == ["formulas", "pictures", "chunking"]
    text = compose_project(settings).services["docling"]
    assert (
        yaml.safe_load(text)["services"]["docling"]["environment"]["HF_HUB_CACHE"]
        == "/opt/huggingface/hub"
    )


def test_links_are_where_docling_and_its_libraries_look(tmp_path: Path) -> None:
    context, artifacts, hub = tmp_path / "llmhost", tmp_path / "artifacts", tmp_path / "hub"
    context.mkdir()
    (context / "models").write_text(f"/models/formulas docling-project/CodeFormulaV2 {COMMIT}\n")
    script = (ROOT / "files/images/docling/link").read_text()
    script = script.replace("/llmhost/models", str(context / "models"))
    script = script.replace("/opt/huggingface/hub", str(hub))
    subprocess.run(
        ["sh", "-s"],
        input=script,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "DOCLING_SERVE_ARTIFACTS_PATH": str(artifacts)},
    )
    link = artifacts / "docling-project--CodeFormulaV2"
    cached = hub / "models--docling-project--CodeFormulaV2"
    assert link.readlink() == Path("/models/formulas")
    assert (cached / "refs/main").read_text() == COMMIT
    assert (cached / "snapshots" / COMMIT).readlink() == Path("/models/formulas")


def test_directory_without_a_publisher_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    files = [{"path": "config.json", "sha256": "44" * 32}]
    model = {"name": "own", "service": "docling", "source": str(tmp_path), "files": files}
    settings = locked_profile("rag-offline", tmp_path, services=["docling"], models=[model])
    assert read_settings(settings).models_of("docling")
    with pytest.raises(SettingsError) as refused:
        read_settings(settings | {"models": [model | {"source": "."}]})
    assert any(
        "end the path of its source in PUBLISHER/NAME" in each.what
        for each in refused.value.problems
    )
