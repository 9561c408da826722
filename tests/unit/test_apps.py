"""`apps`: programs of the site's own become services."""

import io
import json
import posixpath
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmhost.docker.build_context import context_files, unpinned_bases
from llmhost.docker.image import ServiceImage
from llmhost.docker.image_scripts import build_script
from llmhost.gateway.routes import exposed_routes
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.services.app import LINKS
from llmhost.stack.project import compose_project, service_images

DIGEST = "@sha256:" + "ab" * 32
WEB = {
    "name": "web",
    "image": f"registry.example/web:1{DIGEST}",
    "container_port": 3000,
    "health": ["node", "health.js"],
}


def _site(*apps: dict[str, Any], **options: Any) -> dict[str, Any]:
    clients = [{"name": "test", "sha256": "cd" * 32}]
    return {"apps": [WEB | app for app in apps], "api_clients": clients, **options}


def _rendered(**app: Any) -> dict[str, Any]:
    (text,) = compose_project(read_settings(_site(app))).services.values()
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def _problems(*apps: dict[str, Any], **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(SettingsError) as refused:
        read_settings(_site(*apps, **options))
    return [(problem.key, problem.what) for problem in refused.value.problems]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text(f"FROM node:24{DIGEST}\nCOPY . /app\n")
    (tmp_path / "index.js").write_text("// here")
    return tmp_path


def test_app_runs_confined_like_a_service() -> None:
    service = _rendered(port=3000)["services"]["web"]
    assert service["user"] == "10001:10001" and service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and service["logging"]["driver"] == "local"
    assert service["ports"] == ["127.0.0.1:3000:3000"]
    assert service["healthcheck"]["test"] == ["CMD", "node", "health.js"]


COMMIT = "12" * 20
ONNX = {
    "name": "m",
    "service": "web",
    "task": "embed",
    "source": "hf:maker/small-ONNX",
    "revision": COMMIT,
    "files": [
        {"path": "config.json", "sha256": "ab" * 32},
        {"path": "onnx/model_quantized.onnx", "sha256": "cd" * 32},
    ],
}


def _links(image: ServiceImage) -> dict[str, str]:
    (data,) = [file.data for file in image.build_files if file.path == LINKS]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {entry.name: entry.linkname for entry in tar if entry.issym()}


@pytest.mark.parametrize("task", ["generate", "embed", "rerank"])
def test_model_of_any_task_is_put_into_the_image_of_the_site(task: str) -> None:
    (image,) = service_images(read_settings(_site({}, models=[ONNX | {"task": task}])))
    (dockerfile,) = [file.data.decode() for file in image.build_files if file.path == "Dockerfile"]
    (weights,) = image.models
    last = f"FROM engine\n\nCOPY --link --from={weights.reference} / /\nADD {LINKS} /\n"
    assert dockerfile.endswith(last)
    assert [file.path for file in weights.files] == [
        "/models/m/config.json",
        "/models/m/onnx/model_quantized.onnx",
    ]
    links = _links(image)
    for place in ("", "transformers/"):
        path = f"opt/hf-cache/{place}maker/small-ONNX/onnx/model_quantized.onnx"
        target = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), links[path]))
        assert target == "/models/m/onnx/model_quantized.onnx"


def test_model_is_put_into_an_image_that_is_built(context: Path) -> None:
    app = {"image": "", "context": str(context)}
    (bare,) = service_images(read_settings(_site(app)))
    (image,) = service_images(read_settings(_site(app, models=[ONNX])))
    (dockerfile,) = [file.data.decode() for file in image.build_files if file.path == "Dockerfile"]
    assert dockerfile.startswith((context / "Dockerfile").read_text())
    assert dockerfile.endswith(f"--from={image.models[0].reference} / /\nADD {LINKS} /\n")
    assert image.reference != bare.reference


def test_app_with_models_asks_no_hub_and_the_site_has_the_last_word() -> None:
    assert "HF_HOME" not in _rendered()["services"]["web"]["environment"]
    site = _site({"environment": {"HF_HOME": "/srv/cache"}}, models=[ONNX])
    (text,) = compose_project(read_settings(site)).services.values()
    environment = yaml.safe_load(text)["services"]["web"]["environment"]
    assert environment["HF_HOME"] == "/srv/cache"
    assert environment["TRANSFORMERS_CACHE"] == "/opt/hf-cache"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["HF_ALLOW_REMOTE_MODELS"] == "false"


@pytest.mark.parametrize(
    ("directory", "baked"),
    [
        ("/models", "/models"),
        ("/models/m", "/models"),
        ("/opt", "/opt/hf-cache"),
        ("/opt/hf-cache", "/opt/hf-cache"),
    ],
)
def test_volume_over_baked_models_is_refused(directory: str, baked: str) -> None:
    told = f"{directory} of 'web' would hide or replace the models in {baked}"
    for mounted in ({"volumes": {"data": directory}}, {"writable": [directory]}):
        assert _problems(mounted, models=[ONNX]) == [("apps[0].volumes", told)]
        read_settings(_site(mounted))


def test_image_with_musl_is_refused_if_onnx_runtime_must_load(context: Path) -> None:
    alpine = {"image": f"registry.example/node:24-alpine{DIGEST}"}
    ((key, what),) = _problems(alpine, models=[ONNX])
    assert key == "apps[0].image" and "node:24-alpine, with musl" in what
    read_settings(_site(alpine))
    text = f"FROM node:24-alpine{DIGEST} AS base\nFROM debian{DIGEST} AS build\nFROM base\n"
    (context / "Dockerfile").write_text(text)
    built = {"image": "", "context": str(context)}
    assert [key for key, _ in _problems(built, models=[ONNX])] == ["apps[0].context"]
    (context / "Dockerfile").write_text(f"FROM node:24-alpine{DIGEST} AS a\nFROM node{DIGEST}\n")
    (image,) = service_images(read_settings(_site(built, models=[ONNX])))
    assert "ld-musl" in build_script(image)


def test_two_revisions_of_a_repository_are_refused() -> None:
    other = ONNX | {"name": "n", "revision": "34" * 20}
    assert _problems({}, models=[ONNX, other]) == [
        ("models", "'web' has maker/small-ONNX in 2 revisions")
    ]


def test_build_arguments_are_given_and_belong_to_the_digest(context: Path) -> None:
    arguments = {
        "HF_EMBEDDING_MODEL_ID": "maker/small ONNX",
        "HF_PRELOAD_TARGETS": "a,b",
        "HF_RERANKER_MODEL_ID": "maker/other",
    }
    built = {"image": "", "context": str(context)}
    (before,) = service_images(read_settings(_site(built)))
    (after,) = service_images(read_settings(_site(built | {"build_args": arguments})))
    assert before.reference != after.reference
    assert "--build-arg" not in build_script(before)
    for option in (
        "'HF_EMBEDDING_MODEL_ID=maker/small ONNX'",
        "HF_PRELOAD_TARGETS=a,b",
        "HF_RERANKER_MODEL_ID=maker/other",
    ):
        assert f" --build-arg {option}" in build_script(after)
    assert _problems({"build_args": arguments})[0][1].startswith("are given, and the app is not")


def test_routes_of_an_app_may_have_patterns() -> None:
    routes = [{"path": "/_next/static/{path...}"}, {"path": "/api/{id}", "methods": ["POST"]}]
    exposed = exposed_routes(read_settings(_site({"routes": routes, "port": 3000})))
    assert [(route.path, route.is_pattern) for route in exposed] == [
        ("/_next/static/{path...}", True),
        ("/api/{id}", True),
    ]


def test_app_without_a_port_is_reached_by_the_others_only() -> None:
    assert "ports" not in _rendered()["services"]["web"]


def test_apps_and_services_are_one_project() -> None:
    backend = {"name": "backend", "needs": ["redis", "web"]}
    project = compose_project(read_settings(_site({}, backend, services=["redis"])))
    assert [*project.services] == ["redis", "web", "backend"]
    assert yaml.safe_load(project.root)["include"][1:] == [
        "services/web.yaml",
        "services/backend.yaml",
    ]
    service = yaml.safe_load(project.services["backend"])["services"]["backend"]
    assert [*service["depends_on"]] == ["redis", "web"]


def test_image_of_the_site_is_named_by_its_inputs() -> None:
    (image,) = service_images(read_settings(_site({})))
    assert image.engine == WEB["image"]
    (dockerfile,) = image.build_files
    assert dockerfile.data.decode().endswith("FROM engine\n")


def test_context_is_sent_as_it_is_and_known_by_its_files(context: Path) -> None:
    built = {"image": "", "context": str(context)}
    (before,) = service_images(read_settings(_site(built)))
    assert {file.path: file.data for file in before.build_files} == {
        "Dockerfile": (context / "Dockerfile").read_bytes(),
        "index.js": b"// here",
    }
    (context / ".dockerignore").write_text("*.log\n.dockerignore\n")
    (context / "debug.log").write_text("noise")
    (same,) = service_images(read_settings(_site(built)))
    assert same == before
    (context / "index.js").write_text("// changed")
    (after,) = service_images(read_settings(_site(built)))
    assert after.reference != before.reference


def test_routes_are_below_the_apps_name_unless_it_is_the_first() -> None:
    route = {"path": "/api/ask", "methods": ["POST"]}
    apps = [{"routes": [route], "port": 3000}, {"name": "b", "routes": [route], "port": 3001}]
    routes = exposed_routes(read_settings(_site(*apps)))
    assert [(route.path, route.service) for route in routes] == [
        ("/api/ask", "web"),
        ("/b/api/ask", "b"),
    ]


def test_environment_is_taken_literally() -> None:
    environment = {"URL": "http://redis:6379/$0", "ODD": "a: {b} # \"'"}
    rendered = _rendered(environment=environment)["services"]["web"]["environment"]
    # Compose turns $$ back into $ (Compose specification, interpolation).
    assert rendered.pop("ORT_DISABLE_TELEMETRY") == "1"
    assert rendered == {"URL": "http://redis:6379/$$0", "ODD": "a: {b} # \"'"}


def test_secret_is_only_in_a_file_of_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SITE_TOKEN", "it's pa$$word")
    (tmp_path / "key").write_text("kept in a file\n")
    secrets = {"TOKEN": "env:SITE_TOKEN", "KEY": f"file:{tmp_path}/key"}
    settings = read_settings(_site({"secrets": secrets, "environment": {"PLAIN": "x"}}))
    project = compose_project(settings)
    (file,) = [file for file in project.files if b"word" in file.data]
    assert (file.path, file.mode) == ("/opt/llmhost/services/web.yaml", "0600")
    service = yaml.safe_load(project.services["web"])["services"]["web"]
    # Compose turns $$ back into $ (Compose specification, interpolation).
    assert service["environment"] == {
        "TOKEN": "it's pa$$$$word",
        "KEY": "kept in a file",
        "PLAIN": "x",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    assert "$$word" not in settings.model_dump_json()
    assert "word" not in json.dumps([repr(image) for image in service_images(settings)])


def test_volumes_are_named_after_the_app() -> None:
    document = _rendered(volumes={"uploads": "/srv/uploads"}, writable=["/var/cache/web"])
    service = document["services"]["web"]
    assert [*document["volumes"]] == ["web-uploads"]
    assert service["volumes"] == [
        {"type": "volume", "source": "web-uploads", "target": "/srv/uploads"}
    ]
    assert service["tmpfs"] == ["/tmp:mode=1777,noexec", "/var/cache/web:mode=1777,noexec"]


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "neither image nor context": ({"image": ""}, "has no image and no context"),
    "image and context": ({"context": "/nowhere"}, "has an image and a context"),
    "image without digest": ({"image": "web:latest"}, "is text of 10 characters"),
    "no such context": ({"image": "", "context": "/nowhere"}, "the directory does not exist"),
    "root": ({"user": "0:0"}, "is text of 3 characters"),
    "no health check": ({"health": []}, "is an empty list"),
    "name of a service": ({"name": "redis"}, "'redis' is the name of a service"),
    "needs nobody": ({"needs": ["qdrant"]}, "'web' needs 'qdrant', which is not declared"),
    "needs itself": ({"needs": ["web"]}, "'web' would wait for itself"),
    "port of the gateway": ({"port": 8080}, "are both 8080"),
    "secret in the open": ({"secrets": {"KEY": "hunter2"}}, "is not a reference to a secret"),
    "secret not set": ({"secrets": {"KEY": "env:NOT_SET_AT_ALL"}}, "which is not set"),
    "variable twice": (
        {"secrets": {"KEY": "env:HOME"}, "environment": {"KEY": "x"}},
        "has KEY in environment and in secrets",
    ),
    "directory twice": (
        {"volumes": {"a": "/srv/a", "b": "/srv/a"}},
        "/srv/a of 'web' is mounted 2 times",
    ),
    "routes without a port": ({"routes": [{"path": "/"}]}, "has routes and no port"),
    "route that is no path": ({"routes": [{"path": "api"}]}, "is text of 3 characters"),
    "route with an odd pattern": ({"routes": [{"path": "/{a...}/b"}]}, "is text of 9 characters"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_told_in_one_sentence(mistake: str) -> None:
    app, told = MISTAKES[mistake]
    problems = _problems(app)
    assert len(problems) == 1 and told in problems[0][1], problems
    assert "hunter2" not in problems[0][1]


def test_apps_of_one_name_are_told() -> None:
    assert ("apps", "'web' is declared 2 times") in _problems({}, {})


def test_apps_that_wait_for_each_other_are_told() -> None:
    problems = _problems({"needs": ["b"]}, {"name": "b", "needs": ["web"]})
    assert {key for key, _ in problems} == {"apps[0].needs", "apps[1].needs"}


def test_apps_on_one_port_are_told_by_their_place() -> None:
    (problem,) = _problems({"port": 3000}, {"name": "b", "port": 3000})
    assert problem == ("apps[0].port", "apps[0].port and apps[1].port are both 3000")


def test_base_that_can_move_is_refused(context: Path) -> None:
    (context / "Dockerfile").write_text("FROM node:24\n")
    ((key, what),) = _problems({"image": "", "context": str(context)})
    assert key == "apps[0].context" and "a base image without a digest" in what
    (context / "Dockerfile").unlink()
    ((_, what),) = _problems({"image": "", "context": str(context)})
    assert "has no Dockerfile" in what


@pytest.mark.parametrize(
    ("dockerfile", "loose"),
    [
        (f"FROM a{DIGEST}", []),
        (f"from --platform=linux/amd64 a{DIGEST} as build\nFROM build", []),
        ("FROM scratch", []),
        ("FROM a:1 AS b\nFROM c\nCOPY --from=b / /", ["a:1", "c"]),
        ("ARG X\nFROM $X", ["$X"]),
    ],
)
def test_bases_are_found_in_a_dockerfile(dockerfile: str, loose: list[str]) -> None:
    assert unpinned_bases(dockerfile) == loose


def test_dockerignore_is_heeded(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "x/c.md", "x/y/d.tmp", "keep/e.md", "node_modules/f", ".git/g"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    rules = "# comment\n*.md\n!b.md\n**/*.tmp\n/keep/\n.dockerignore\n"
    (tmp_path / ".dockerignore").write_text(rules)
    assert [file.path for file in context_files(tmp_path)] == ["b.md", "x/c.md"]
