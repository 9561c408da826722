"""Open WebUI as a service of the stack."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.stack.project import compose_project, service_images
from tests.unit.profile_sites import locked_profile


def _service(directory: Path, **options: Any) -> dict[str, Any]:
    settings = read_settings(locked_profile("vllm", directory, **options))
    text = compose_project(settings).services["open_webui"]
    service: dict[str, Any] = yaml.safe_load(text)["services"]["open_webui"]
    return service


def _problems(directory: Path, **options: Any) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        read_settings(locked_profile("vllm", directory, **options))
    return [problem.sentence("llm") for problem in refused.value.problems]


def test_it_finds_no_one_outside_to_ask(tmp_path: Path) -> None:
    environment = _service(tmp_path)["environment"]
    assert environment["OFFLINE_MODE"] == "true"
    assert environment["HF_HUB_OFFLINE"] == environment["TRANSFORMERS_OFFLINE"] == "1"
    off = ("ENABLE_VERSION_UPDATE_CHECK", "ENABLE_OLLAMA_API", "ENABLE_COMMUNITY_SHARING")
    assert {environment[name] for name in off} == {"false"}
    assert environment["ENABLE_PIP_INSTALL_FRONTMATTER_REQUIREMENTS"] == "false"
    addresses = [value for value in environment.values() if "://" in str(value)]
    assert addresses == ["http://vllm:8000/v1"]


def test_inventory_counts_more_than_what_the_ui_stored(tmp_path: Path) -> None:
    assert _service(tmp_path)["environment"]["ENABLE_PERSISTENT_CONFIG"] == "false"
    kept = _service(tmp_path, open_webui_persistent_settings=True)
    assert kept["environment"]["ENABLE_PERSISTENT_CONFIG"] == "true"


def test_first_administrator_is_not_whoever_comes_first(tmp_path: Path) -> None:
    environment = _service(tmp_path)["environment"]
    assert environment["WEBUI_ADMIN_EMAIL"] and environment["WEBUI_ADMIN_PASSWORD"]
    assert (environment["WEBUI_AUTH"], environment["ENABLE_SIGNUP"]) == ("true", "false")


def test_secrets_are_in_a_private_file_and_nowhere_else(tmp_path: Path) -> None:
    settings = read_settings(locked_profile("vllm", tmp_path))
    project = compose_project(settings)
    # Compose turns $$ back into $.
    assert "a secret $$of {the} site" in project.services["open_webui"]
    assert project.private == {"open_webui"}
    assert "the} site" not in project.services["vllm"] + project.root + settings.model_dump_json()
    built = [file.data for image in service_images(settings) for file in image.build_files]
    assert not any(b"the} site" in data for data in built)


def test_volume_lies_over_nothing_that_is_baked(tmp_path: Path) -> None:
    service = _service(tmp_path)
    (volume,) = service["volumes"]
    assert volume["target"] == service["environment"]["DATA_DIR"] == "/srv/data"
    # The image keeps its models below here.
    assert not volume["target"].startswith("/app")


def test_it_waits_for_the_engines_that_it_asks(tmp_path: Path) -> None:
    assert set(_service(tmp_path)["depends_on"]) == {"vllm"}
    urls = ["http://10.0.0.7:8000/v1", "http://vllm:8000/v1"]
    service = _service(tmp_path, open_webui_engine_urls=urls)
    assert service["environment"]["OPENAI_API_BASE_URLS"] == ";".join(urls)
    assert set(service["depends_on"]) == {"vllm"}
    (told,) = _problems(tmp_path, open_webui_engine_urls=["http://llamacpp:8080/v1"])
    assert "'open_webui' needs 'llamacpp', which is not declared" in told


def test_documents_are_embedded_by_the_image_or_by_a_service(tmp_path: Path) -> None:
    assert "RAG_EMBEDDING_ENGINE" not in _service(tmp_path)["environment"]
    address = "http://10.0.0.7:8080/v1"
    environment = _service(tmp_path, open_webui_embeddings_url=address)["environment"]
    assert environment["RAG_EMBEDDING_ENGINE"] == "openai"
    assert environment["RAG_OPENAI_API_BASE_URL"] == address
    assert environment["RAG_EMBEDDING_MODEL"] == "embedding"


def test_other_sites_are_kept_away_where_the_origins_are_known(tmp_path: Path) -> None:
    assert "CORS_ALLOW_ORIGIN" not in _service(tmp_path)["environment"]
    origins = ["https://llm-server:3000", "https://llm:3000"]
    environment = _service(tmp_path, open_webui_origins=origins)["environment"]
    assert environment["CORS_ALLOW_ORIGIN"] == ";".join(origins)
    assert environment["WEBUI_SESSION_COOKIE_SECURE"] == "true"
    plain = _service(tmp_path, open_webui_origins=[*origins, "http://llm"])["environment"]
    assert "WEBUI_SESSION_COOKIE_SECURE" not in plain


def test_missing_secret_is_told_with_the_way_to_make_it(tmp_path: Path) -> None:
    place = tmp_path / "no-key"
    (told,) = _problems(tmp_path, open_webui_secret_key=f"file:{place}")
    assert told.startswith(f"llm: open_webui_secret_key: refers to the file {place}, which cannot")
    assert f"(umask 077; openssl rand -hex 32 > {place})" in told
    (told,) = _problems(tmp_path, open_webui_admin_password="env:LLMHOST_NOT_SET")
    assert "open_webui_admin_password: refers to the environment variable LLMHOST_NOT_SET" in told
    (told,) = _problems(tmp_path, open_webui_admin_password="hunter2")
    assert "is not a reference to a secret" in told and "hunter2" not in told


def test_ports_are_on_the_loopback_and_the_ui_is_in_the_firewall(tmp_path: Path) -> None:
    settings = read_settings(locked_profile("vllm", tmp_path))
    assert _service(tmp_path)["ports"] == ["127.0.0.1:8083:8080"]
    assert settings.uis["open_webui"].ui_port == 3000
    (told,) = _problems(tmp_path, open_webui_ui_port=8080)
    assert "gateway_port and open_webui_ui_port are both 8080" in told
