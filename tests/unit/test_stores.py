"""Redis, Qdrant and Chroma: services that only the other services can reach."""

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import yaml

from llmhost.gateway.routes import exposed_routes
from llmhost.gateway.tree import NginxPaths, configuration
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.stack.project import compose_project, service_images

STORES = ("redis", "qdrant", "chroma")


def _site(*services: str, **options: Any) -> dict[str, Any]:
    clients = [{"name": "test", "sha256": "cd" * 32}]
    return {"services": [*services], "api_clients": clients, **options}


def _rendered(name: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A service's part of the Compose project, and its volumes."""
    project = compose_project(read_settings(_site(name, **options)))
    document = yaml.safe_load(project.services[name])
    return document["services"][name], document.get("volumes", {})


@pytest.mark.parametrize("name", STORES)
def test_no_port_is_published(name: str) -> None:
    service, _ = _rendered(name)
    assert "ports" not in service
    assert exposed_routes(read_settings(_site(name))) == ()


@pytest.mark.parametrize("name", STORES)
def test_port_is_published_on_the_loopback_where_it_is_asked_for(name: str) -> None:
    service, _ = _rendered(name, **{f"{name}_port": 9999})
    (published,) = service["ports"]
    assert published.startswith("127.0.0.1:9999:")


@pytest.mark.parametrize("name", STORES)
def test_gateway_knows_nothing_of_it(name: str) -> None:
    tree = configuration(read_settings(_site(name, gateway_tls="off")), NginxPaths())
    assert not any(name in file.data.decode() for file in tree)


@pytest.mark.parametrize("name", STORES)
def test_its_user_can_write_only_to_its_volume(name: str) -> None:
    service, volumes = _rendered(name, **({"redis_persistent": True} if name == "redis" else {}))
    assert service["user"] == "10001:10001" and service["read_only"] is True
    (mounted,) = [each for each in service["volumes"] if each["type"] == "volume"]
    assert [*volumes] == [mounted["source"]] == [f"{name}-data"]
    (image,) = service_images(read_settings(_site(name)))
    (dockerfile,) = image.build_files
    # BuildKit makes a working directory for the user that was named before it.
    assert f"USER {service['user']}\nWORKDIR {mounted['target']}\n" in dockerfile.data.decode()


@pytest.mark.parametrize("name", STORES)
def test_memory_is_limited(name: str) -> None:
    assert _rendered(name)[0]["mem_limit"]


@pytest.mark.parametrize("name", STORES)
def test_model_is_refused(name: str) -> None:
    model = {"name": "m", "service": name, "source": "https://x/m.gguf", "sha256": "1" * 64}
    with pytest.raises(SettingsError) as refused:
        read_settings(_site(name, models=[model]))
    assert f"service '{name}' runs no models" in refused.value.problems[0].what


def test_cache_is_not_kept_unless_it_is_asked_for() -> None:
    service, volumes = _rendered("redis")
    assert volumes == {} and [each["type"] for each in service["volumes"]] == ["tmpfs"]


def test_first_service_with_routes_answers_at_the_root() -> None:
    model = {"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}
    settings = read_settings(_site("redis", "llamacpp", models=[model]))
    assert "/v1/models" in {route.path for route in exposed_routes(settings)}


class _Status(BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Status) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
def test_health_check_of_images_without_curl_tells_statuses_apart(
    port: int, status: int, healthy: bool
) -> None:
    check = _rendered("qdrant")[0]["healthcheck"]["test"]
    script = (
        check[-1].replace("$$", "$").replace("/readyz", f"/{status}").replace("6333", str(port))
    )
    assert (subprocess.run([*check[1:-1], script]).returncode == 0) is healthy


def test_health_check_fails_where_nobody_listens(port: int) -> None:
    check = _rendered("qdrant")[0]["healthcheck"]["test"]
    script = check[-1].replace("$$", "$").replace("6333", "9")
    assert subprocess.run([*check[1:-1], script], stderr=subprocess.DEVNULL).returncode != 0
