"""Profiles are defaults, and their models are nothing until they are locked."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from llmhost.gateway.metrics import endpoints
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.profiles import PARTS, PROFILES
from llmhost.inventory.reader import known_keys, read_settings
from llmhost.models.lock import LockError, read_lock, with_pins, write_lock
from llmhost.options.stack import Stack
from llmhost.services import catalogue
from llmhost.stack.limits import Capacity
from llmhost.stack.project import compose_project
from tests.unit.profile_sites import CLIENTS, COMMIT, locked_profile, write_pins


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Pins for every model of every profile."""
    return write_pins(tmp_path / "models.lock.json")


def site(profile: str, lock: Path, **more: Any) -> dict[str, Any]:
    data = {"stack_profile": profile, "stack_models_lock": str(lock), "api_clients": CLIENTS}
    return data | more


def problems(data: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        read_settings(data)
    return [problem.sentence("llm") for problem in refused.value.problems]


@pytest.mark.parametrize("name", PROFILES)
def test_profile_names_services_and_keys_that_exist(name: str) -> None:
    profile = PROFILES[name]
    assert set(profile.services) <= set(catalogue())
    assert set(profile.defaults) <= set(known_keys())


@pytest.mark.parametrize("name", PROFILES)
def test_locked_profile_is_a_whole_inventory(name: str, tmp_path: Path) -> None:
    settings = read_settings(locked_profile(name, tmp_path))
    assert settings.services == PROFILES[name].services
    project = compose_project(settings)
    for service, text in project.services.items():
        declared = yaml.safe_load(text)["services"][service]
        assert declared["image"].startswith(f"llmhost/{service}:")
        assert declared["restart"] == "unless-stopped" and declared["read_only"]
        assert declared["logging"]["options"]["max-size"] == "50m"
        assert "start_period" in declared["healthcheck"]
    assert project.private == {"open_webui"} & set(project.services)
    assert all(int(sha256, 16) for model in settings.models for sha256 in model.baked.values())


@pytest.mark.parametrize("name", PROFILES)
def test_project_is_read_by_the_same_names_on_every_host(name: str, tmp_path: Path) -> None:
    """So that it can be read before the GPUs and the size of the host are known."""
    settings = read_settings(locked_profile(name, tmp_path))
    devices = dict.fromkeys(settings.services, ("nvidia.com/gpu=0",))
    early = compose_project(settings)
    late = compose_project(settings, devices, Capacity(16, 64 * 1024**3))
    for each in ("name", "directory", "images", "questions"):
        assert getattr(early, each) == getattr(late, each)
    assert [*early.services] == [*late.services] and early.services != late.services


@pytest.mark.parametrize("name", PROFILES)
def test_every_model_of_a_profile_runs_on_one_of_its_services(name: str, tmp_path: Path) -> None:
    settings = read_settings(locked_profile(name, tmp_path))
    assert {model.service for model in settings.models} <= set(settings.services)
    assert len({model.name for model in settings.models}) == len(settings.models)


@pytest.mark.parametrize(
    ("name", "option", "other"),
    [
        ("embeddings", "embeddings_port", 9001),
        ("ollama", "ollama_gpu", 1),
        ("rag-offline", "docling_gpu", 1),
        ("rag-offline", "docker_log_max_size_mib", 10),
        ("rag-offline", "policy_denied_publishers", ("someone",)),
        ("search", "vllm_gpu_fraction", 0.5),
        ("search", "search_api_embedding_model", "own"),
        ("vllm", "open_webui_ui_port", 3443),
        ("vllm", "vllm_timezone", "Etc/UTC"),
    ],
)
def test_default_of_a_profile_gives_way(
    name: str, option: str, other: object, tmp_path: Path
) -> None:
    given = read_settings(locked_profile(name, tmp_path, **{option: other})).model_dump()
    section, _, field = next(
        (section, "", option.removeprefix(f"{section}_"))
        for section in sorted({*given, *given["service_options"]}, key=len, reverse=True)
        if option.startswith(f"{section}_")
    )
    values = given["service_options"].get(section) or given[section]
    assert values[field] == other


def test_figures_of_the_search_profile_reach_the_engine(tmp_path: Path) -> None:
    project = compose_project(read_settings(locked_profile("search", tmp_path)))
    engine = yaml.safe_load(project.services["vllm"])["services"]["vllm"]
    command = engine["command"]
    assert command[command.index("--gpu-memory-utilization") + 1] == "0.7"
    assert engine["mem_limit"] == "16g"
    waits = yaml.safe_load(project.services["search_api"])["services"]["search_api"]["depends_on"]
    assert set(waits) == {"qdrant", "redis", "embeddings"}


def test_site_adds_its_own_apps_to_a_profile(tmp_path: Path) -> None:
    app = {
        "name": "backend",
        "image": f"registry.example/backend:1@sha256:{'1' * 64}",
        "container_port": 3000,
        "port": 3001,
        "health": ["true"],
        "needs": ["ollama", "docling", "chroma"],
    }
    settings = read_settings(locked_profile("rag-offline", tmp_path, apps=[app]))
    assert settings.services == ("ollama", "docling", "chroma", "backend")


def test_forbidden_base_is_refused_by_the_offline_profile(tmp_path: Path) -> None:
    data = locked_profile("rag-offline", tmp_path)
    path = Path(data["stack_models_lock"])
    entries = read_lock(path.read_text())
    source = "ollama:joonoh/HyperCLOVAX-SEED-Text-Instruct-1.5B:latest"
    entries[source]["base_models"] = ["deepseek-ai/DeepSeek-R1"]
    path.write_text(write_lock(entries))
    told = problems(data)
    assert [each for each in told if "policy_denied_publishers 'deepseek'" in each] == told != []


def test_profile_without_a_lock_says_how_to_make_one(tmp_path: Path) -> None:
    told = problems(site("ollama", tmp_path / "none.json"))
    assert len(told) == 4
    assert all("run: llmhost model lock" in each for each in told)


def test_every_default_can_be_overridden(lock: Path) -> None:
    more = {"ollama_gpu": None, "ollama_port": 11500, "services": ["ollama", "embeddings"]}
    model = {"name": "own", "service": "ollama", "source": "https://a/b.gguf", "sha256": "1" * 64}
    embedder = {"name": "e", "service": "embeddings", "task": "embed"}
    embedder |= {"source": "https://a/e.gguf", "sha256": "2" * 64}
    settings = read_settings(site("ollama", lock, models=[model, embedder], **more))
    assert settings.services == ("ollama", "embeddings")
    assert [each.name for each in settings.models] == ["own", "e"]
    assert settings.options("ollama").gpu is None and settings.options("ollama").port == 11500


def test_unknown_profile_is_told_with_the_nearest(lock: Path) -> None:
    (told,) = problems(site("olama", lock))
    assert told == "llm: stack_profile: 'olama' is not a profile; did you mean ollama?"
    (told,) = problems(site("kubernetes", lock))
    assert "write 'embeddings', 'ollama', 'rag-offline', 'search' or 'vllm'" in told


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}', '{"schema": 1, "models": [1]}'])
def test_file_that_is_no_lock_is_refused(lock: Path, text: str) -> None:
    with pytest.raises(LockError):
        read_lock(text)
    lock.write_text(text)
    told = problems(site("embeddings", lock))
    assert any(each.startswith("llm: stack_models_lock: the lock file ") for each in told)


def test_lock_is_the_same_for_the_same_entries() -> None:
    entries = {"hf:b/c": {"sha256": "1"}, "hf:a/b": {"sha256": "2"}}
    assert write_lock(entries) == write_lock(dict(reversed(entries.items())))
    assert read_lock(write_lock(entries)) == entries


def test_pins_of_the_inventory_count_more_than_those_of_the_lock() -> None:
    lock = {"hf:a/b": {"revision": COMMIT, "sha256": "1", "base_models": ["x/y"]}}
    own = {"source": "hf:a/b", "sha256": "2"}
    assert with_pins(own, lock) == own
    other = {"source": "hf:a/b", "revision": "34" * 20}
    assert with_pins(other, lock) == other
    floating = {"source": "hf:a/b", "base_models": ["p/q"]}
    assert with_pins(floating, lock)["base_models"] == ["p/q", "x/y"]
    assert with_pins(floating, lock)["sha256"] == "1"


def test_ancestor_in_the_lock_is_judged_by_the_policy(lock: Path) -> None:
    entries = read_lock(lock.read_text())
    source = PROFILES["embeddings"].defaults["models"][0]["source"]
    entries[source]["base_models"] = ["Qwen/Qwen3-Embedding"]
    lock.write_text(write_lock(entries))
    told = problems(site("embeddings", lock, policy_denied_publishers=["Qwen"]))
    assert any("is refused by policy_denied_publishers" in each for each in told)


def test_part_adds_its_services_and_defaults(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 40)
    secret = f"file:{tmp_path / 'key'}"
    more = {
        "stack_parts": ["monitoring"],
        "monitoring_key": secret,
        "monitoring_keep_days": 7,
        **{f"grafana_{name}": secret for name in ("admin_password", "secret_key")},
        "grafana_monitoring_key": secret,
    }
    settings = read_settings(locked_profile("search", tmp_path, **more))
    assert settings.services == (*PROFILES["search"].services, "grafana")
    assert settings.monitoring.server and settings.monitoring.keep_days == 7
    assert settings.options("qdrant").port == 6333
    jobs = {each.job for each in endpoints(settings)}
    assert jobs == {"node", "gateway", "search_api", "vllm", "qdrant"}


def test_unknown_part_is_a_mistake() -> None:
    [sentence] = problems({"stack_parts": ["monitorin"], "services": []})
    assert "stack_parts" in sentence and "monitoring" in sentence


def test_every_part_can_be_declared() -> None:
    for part in PARTS:
        assert Stack.model_validate({"parts": [part]}).parts == (part,)
