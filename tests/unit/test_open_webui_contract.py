"""What Open WebUI answers with the environment that llmhost gives it, and its double as well.

The real one is tried where LLMHOST_OPEN_WEBUI is a Python that has the package open-webui.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from llmhost.inventory.reader import read_settings
from llmhost.services.open_webui import SERVICE, OpenWebuiOptions
from llmhost.stack.project import compose_project
from tests.integration.local_gateway import free_ports
from tests.unit.profile_sites import locked_profile

ROOT = Path(__file__).parents[2]
REAL = os.environ.get("LLMHOST_OPEN_WEBUI")
SIDES = ["double", "double of 0.12", *(["real"] if REAL else [])]
PASSWORD = "a secret $of {the} site"
LOGIN = {"email": "admin@localhost", "password": PASSWORD}
PROHIBITED = "You do not have permission to access this resource. Please contact your administrator"


class Engine(BaseHTTPRequestHandler):
    """An engine with one model that says one thing."""

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "said"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._send({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]})

    def _send(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@dataclass
class Ui:
    """One that runs, and what it was told."""

    url: str
    log: Path
    environment: Mapping[str, str]

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers=headers, timeout=60)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=60)


@pytest.fixture(scope="module", params=SIDES)
def ui(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    home = tmp_path_factory.mktemp(request.param)
    port, engine_port = free_ports(2)
    engine = ThreadingHTTPServer(("127.0.0.1", engine_port), Engine)
    threading.Thread(target=engine.serve_forever, daemon=True).start()
    environment = _environment(home, port, engine_port)
    version = request.param.removeprefix("double").removeprefix(" of ")
    program = [sys.executable, str(ROOT / "tests/doubles/open_webui.py"), version]
    if request.param == "real":
        frontend = [str(REAL), "-c", "import open_webui; print(*open_webui.__path__)"]
        where = subprocess.run(frontend, capture_output=True, text=True, check=True).stdout.strip()
        environment["FRONTEND_BUILD_DIR"] = f"{where}/frontend"
        program = [str(REAL), "-m", "uvicorn", "open_webui.main:app", "--port", str(port)]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(program, env=environment, cwd=home, stdout=log, stderr=log)
    try:
        found = Ui(f"http://127.0.0.1:{port}", home / "log", environment)
        _wait(process, found)
        yield found
    finally:
        process.terminate()
        process.wait(30)
        engine.shutdown()


def _environment(home: Path, port: int, engine_port: int) -> dict[str, str]:
    """As the Compose file has it, with places that are here."""
    text = compose_project(read_settings(locked_profile("vllm", home))).services["open_webui"]
    declared = yaml.safe_load(text)["services"]["open_webui"]["environment"]
    given = {name: str(value).replace("$$", "$") for name, value in declared.items()}
    for name, directory in {"DATA_DIR": "data", "STATIC_DIR": "static", "HOME": "home"}.items():
        (home / directory).mkdir()
        given[name] = str(home / directory)
    given |= {"PORT": str(port), "HOST": "127.0.0.1", "PATH": os.environ["PATH"], "ENV": "prod"}
    return given | {"OPENAI_API_BASE_URLS": f"http://127.0.0.1:{engine_port}/v1"}


def _wait(process: "subprocess.Popen[bytes]", ui: Ui) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert process.poll() is None, ui.log.read_text()[-3000:]
        try:
            if ui.get("/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(ui.log.read_text()[-3000:])


def test_it_tells_that_it_is_well(ui: Ui) -> None:
    for path in ("/health", "/ready", "/health/db"):
        assert ui.get(path).json() == {"status": True}


def test_it_has_an_administrator_and_a_login_and_no_sign_up(ui: Ui) -> None:
    config = ui.get("/api/config").json()
    assert config["status"] and config["name"] == "Open WebUI" and "onboarding" not in config
    features = config["features"]
    assert (features["auth"], features["enable_login_form"], features["enable_signup"]) == (
        True,
        True,
        False,
    )


def test_stranger_is_refused(ui: Ui) -> None:
    form = {"name": "stranger", "email": "stranger@example.com", "password": "No-password-1"}
    answer = ui.post("/api/v1/auths/signup", form)
    assert answer.status_code == 403 and answer.json()["detail"].startswith(PROHIBITED)
    answer = ui.get("/api/models")
    assert (answer.status_code, answer.json()) == (401, {"detail": "Not authenticated"})
    answer = ui.post("/api/v1/auths/signin", LOGIN | {"password": "wrong"})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("The email or password provided is incorrect.")
    assert ui.get("/api/models", Authorization="Bearer a.b.c").status_code == 401


def test_administrator_logs_in_and_talks_to_the_engine(ui: Ui) -> None:
    answer = ui.post("/api/v1/auths/signin", LOGIN)
    user = answer.json()
    assert answer.status_code == 200
    wanted = {"token_type": "Bearer", "email": "admin@localhost", "name": "Admin", "role": "admin"}
    assert wanted.items() <= user.items() and user["expires_at"] > time.time()
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("token=ey") and "httponly" in cookie and "samesite=lax" in cookie
    bearer = {"Authorization": f"Bearer {user['token']}"}
    listed: list[dict[str, Any]] = ui.get("/api/models", **bearer).json()["data"]
    # Nothing else: no model of its own that stands for others.
    assert [model["id"] for model in listed] == ["m"]
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
    said = ui.post("/api/chat/completions", body, **bearer).json()
    assert said["choices"][0]["message"]["content"] == "said"


def changed_settings(ui: Ui) -> list[str]:
    """What llmhost is told inside the container."""
    program = SERVICE.changed_settings(OpenWebuiOptions())
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, env=ui.environment, capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


def test_settings_that_an_administrator_changed_are_told(ui: Ui) -> None:
    assert changed_settings(ui) == []
    bearer = {"Authorization": f"Bearer {ui.post('/api/v1/auths/signin', LOGIN).json()['token']}"}
    elsewhere = {
        "openai.api_base_urls": ["https://engine.invalid/v1"],
        "ui.enable_signup": True,
        "ui.default_models": "m",
    }
    before: dict[str, Any] = ui.get("/api/v1/configs/export", **bearer).json()
    try:
        assert ui.post("/api/v1/configs/import", {"config": elsewhere}, **bearer).is_success
        assert ui.get("/api/config").json()["features"]["enable_signup"]
        own = before["openai.api_base_urls"]
        assert changed_settings(ui) == [
            f'openai.api_base_urls was set to ["https://engine.invalid/v1"], not {json.dumps(own)}',
            "ui.enable_signup was set to true, not false",
        ]
    finally:
        kept = {key: before[key] for key in elsewhere}
        ui.post("/api/v1/configs/import", {"config": kept}, **bearer)
    assert changed_settings(ui) == []


def test_strangers_and_forged_logins_see_no_settings(ui: Ui) -> None:
    assert ui.get("/api/v1/configs/export").status_code == 401
    forged = {**ui.environment, "WEBUI_SECRET_KEY": "another"}
    command = [sys.executable, "-c", SERVICE.changed_settings(OpenWebuiOptions())]
    ran = subprocess.run(command, env=forged, capture_output=True, text=True)
    assert ran.returncode != 0 and "401" in ran.stderr


def test_settings_that_count_for_good_are_not_asked_for() -> None:
    assert SERVICE.changed_settings(OpenWebuiOptions(persistent_settings=True)) == ""
