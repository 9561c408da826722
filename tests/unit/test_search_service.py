"""The search API as a service of the stack."""

from typing import Any, get_args

import pytest
import yaml

from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.resources import FILES
from llmhost.services import search_api as service_module
from llmhost.stack.project import compose_project, service_images
from search_api.config import CollectionDefaults, Config, Ranking
from search_api.keywords import DETECT, LANGUAGES
from search_api.page import FILES as PAGE_FILES


def _site(**options: Any) -> dict[str, Any]:
    return {
        "services": ["qdrant", "redis", "search_api"],
        "search_api_embeddings_url": "http://10.0.0.9:8080/v1",
        "api_clients": [{"name": "test", "sha256": "cd" * 32}],
        **options,
    }


def _service(**options: Any) -> dict[str, Any]:
    text = compose_project(read_settings(_site(**options))).services["search_api"]
    service: dict[str, Any] = yaml.safe_load(text)["services"]["search_api"]
    return service


def test_it_starts_after_the_services_that_it_asks() -> None:
    assert _service()["depends_on"] == {
        name: {"condition": "service_healthy"} for name in ("qdrant", "redis")
    }


def test_several_processes_share_their_metrics() -> None:
    one, two = _service(), _service(search_api_workers=2)
    assert one["command"][-2:] == ["--workers", "1"]
    assert "PROMETHEUS_MULTIPROC_DIR" not in one["environment"]
    assert two["command"][-2:] == ["--workers", "2"]
    assert two["environment"]["PROMETHEUS_MULTIPROC_DIR"].startswith("/tmp/")


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"services": ["search_api", "redis"]}, "qdrant"),
        ({"services": ["search_api", "qdrant"]}, "redis"),
        ({"search_api_embeddings_url": "http://llamacpp:8080/v1"}, "llamacpp"),
    ],
)
def test_missing_service_is_told(options: dict[str, Any], missing: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(_site(**options))
    (problem,) = refused.value.problems
    assert problem.what == f"'search_api' needs '{missing}', which is not declared"


def test_service_elsewhere_is_not_needed_here() -> None:
    elsewhere = {
        "services": ["search_api"],
        "search_api_qdrant_url": "http://vectors.example:6333",
        "search_api_redis_url": "redis://10.0.0.8:6379/1",
    }
    assert "depends_on" not in _service(**elsewhere)


def test_program_reads_every_option() -> None:
    options: dict[str, Any] = {
        "candidates": 7,
        "rrf_k": 20,
        "meaning_weight": 2.0,
        "words_weight": 0.5,
        "hnsw_ef": 64,
        "cache_seconds": 0,
        "query_prefix": "query: ",
        "document_prefix": "passage: ",
        "rerank_model": "reranker",
        "rerank_top": 5,
        "rerank_timeout_seconds": 0.2,
        "language": "german",
        "fields": {"lang": "keyword", "file": "path"},
        "passage_characters": 1000,
        "passage_overlap": 50,
    }
    rendered = _service(**{f"search_api_{name}": value for name, value in options.items()})
    config = Config.from_environment(rendered["environment"])
    assert (config.qdrant_url, config.redis_url) == ("http://qdrant:6333", "redis://redis:6379/0")
    assert config.embeddings_url == "http://10.0.0.9:8080/v1"
    assert config.ranking == Ranking(20, 2.0, 0.5, 7, 64)
    assert config.defaults == CollectionDefaults("german", 1000, 50, options["fields"])
    assert (config.query_prefix, config.document_prefix) == ("query: ", "passage: ")
    assert (config.rerank_model, config.rerank_top, config.rerank_seconds) == ("reranker", 5, 0.2)
    assert config.cache_seconds == 0


def test_defaults_of_the_options_are_those_of_the_program() -> None:
    config = Config.from_environment(_service()["environment"])
    assert (config.ranking, config.defaults) == (Ranking(), CollectionDefaults())
    assert config.rerank_model == ""


def test_languages_are_those_of_the_program() -> None:
    assert set(get_args(service_module.Language)) == {*LANGUAGES, DETECT}


def _context(**options: Any) -> dict[str, str]:
    image = service_images(read_settings(_site(**options)))[-1]
    return {file.path: file.data.decode() for file in image.build_files}


def test_image_holds_the_program_and_locked_packages() -> None:
    context = _context()
    sources = {path for path in context if path.startswith("search_api/")}
    program = FILES / "images/search_api"
    files = [*program.glob("search_api/*.py"), *program.glob("search_api/page/*.*")]
    assert sources == {str(path.relative_to(program)) for path in files}
    pinned = [line for line in context["requirements.lock"].splitlines() if "==" in line]
    assert len(pinned) > 20 and "--hash=sha256:" in context["requirements.lock"]
    assert "://" not in "".join(
        line
        for line in context["requirements.lock"].splitlines()
        if not line.strip().startswith("#")
    )


def test_page_is_what_the_program_serves_and_asks_for_routes_of_the_service() -> None:
    page = service_module.SERVICE.page
    assert page and {*page.routes} <= {*service_module.SERVICE.routes}
    served = {path.name for path in PAGE_FILES.iterdir()}
    assert {path.strip("/") or "index.html" for path in page.files} == served


@pytest.mark.parametrize("name", ["docs--1", "a--b--12"])
def test_name_that_the_program_needs_itself_is_refused(name: str) -> None:
    with pytest.raises(SettingsError):
        read_settings(_site(search_api_collection=name))
    assert read_settings(_site(search_api_collection=f"{name}b"))


def test_package_index_is_the_sites_own() -> None:
    context = _context(search_api_package_index="https://mirror.example/simple")
    assert context["pip.conf"] == "[global]\nindex-url = https://mirror.example/simple\n"
    assert _context()["pip.conf"] == "[global]\n"


def test_secret_in_the_package_index_is_refused() -> None:
    with pytest.raises(SettingsError):
        read_settings(_site(search_api_package_index="https://user:secret@mirror.example/simple"))
