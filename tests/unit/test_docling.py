"""docling-serve as a service of the stack."""

import io
import posixpath
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.services.docling import SERVICE, TOKENIZER
from llmhost.settings import Settings
from llmhost.stack.project import compose_project, service_images
from tests.unit.profile_sites import COMMIT, locked_profile


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


def _archived(settings: Settings) -> tuple[dict[str, str], dict[str, str]]:
    """Links and texts of docling's build context, by absolute path."""
    (image,) = [each for each in service_images(settings) if each.service == "docling"]
    (data,) = [file.data for file in image.build_files if file.path == "links.tar"]
    links, texts = {}, {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            path = f"/{entry.name}"
            if entry.issym():
                target = posixpath.join(posixpath.dirname(path), entry.linkname)
                links[path] = posixpath.normpath(target)
            elif file := tar.extractfile(entry):
                texts[path] = file.read().decode()
    return links, texts


ARTIFACTS = "/opt/app-root/src/.cache/docling/models"


def test_further_models_are_linked_where_docling_and_its_libraries_look(tmp_path: Path) -> None:
    settings = read_settings(locked_profile("rag-offline", tmp_path))
    (image,) = [each for each in service_images(settings) if each.service == "docling"]
    assert [model.model for model in image.models] == ["formulas", "pictures", "chunking"]
    links, texts = _archived(settings)
    cached = "/opt/huggingface/hub/models--docling-project--CodeFormulaV2"
    assert links[f"{ARTIFACTS}/docling-project--CodeFormulaV2"] == "/models/formulas"
    assert links[f"{cached}/snapshots/{COMMIT}"] == "/models/formulas"
    assert texts[f"{cached}/refs/main"] == COMMIT
    environment = yaml.safe_load(compose_project(settings).services["docling"])
    hub = environment["services"]["docling"]["environment"]["HF_HUB_CACHE"]
    assert hub == "/opt/huggingface/hub"


def test_files_are_linked_at_a_declared_place(tmp_path: Path) -> None:
    path = "onnx/PP-OCRv5/rec/korean_PP-OCRv5_rec_mobile.onnx"
    model = {
        "name": "korean",
        "service": "docling",
        "source": "hf:RapidAI/RapidOCR",
        "include": [path],
        "revision": COMMIT,
        "files": [{"path": path, "sha256": "44" * 32}],
        "directory": "RapidOcr",
    }
    data = locked_profile("rag-offline", tmp_path, services=["docling"], models=[model])
    links, texts = _archived(read_settings(data))
    assert links == {f"{ARTIFACTS}/RapidOcr/{path}": f"/models/korean/{path}"} and not texts
    vllm = model | {"service": "vllm"}
    with pytest.raises(SettingsError) as refused:
        read_settings(data | {"services": ["vllm"], "models": [vllm]})
    told = [problem.what for problem in refused.value.problems]
    assert "service 'vllm' cannot run 'korean' with a directory" in told


def test_tokenizer_without_the_length_of_a_chunk_is_refused(tmp_path: Path) -> None:
    """The real one then answers with no chunks."""
    pinned = {"path": "tokenizer.json", "sha256": "44" * 32}
    model = {"name": "chunking", "service": "docling", "task": "embed", "context_tokens": 256}
    model |= {"source": f"hf:{TOKENIZER}", "revision": COMMIT, "files": [pinned]}
    data = locked_profile("rag-offline", tmp_path, services=["docling"], models=[model])
    with pytest.raises(SettingsError) as refused:
        read_settings(data)
    (problem,) = refused.value.problems
    assert "finds no chunks without the file sentence_bert_config.json" in problem.what
    model["files"] = [pinned, pinned | {"path": "sentence_bert_config.json"}]
    assert read_settings(data | {"models": [model]}).models_of("docling")


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
