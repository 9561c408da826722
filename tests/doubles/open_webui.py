"""A double of Open WebUI: what it needs at its start, its health, its login, and the models of the
engines that it is told of. No interface for people, no documents.

It proves that it is told in words it understands (open_webui/env.py, config.py, main.py and
routers/auths.py of 0.10.2; with the argument `0.12`, logins as in utils/auth.py of 0.12.4). As a
program it serves where HOST and PORT say; it needs the standard library only, so that an image for
it is small.
"""

import base64
import hashlib
import hmac
import json
import os
import signal
import sqlite3
import sys
import time
import urllib.error
import urllib.request
import uuid
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

INVALID_CRED = (
    "The email or password provided is incorrect. Please check for typos and try logging in again."
)
ACCESS_PROHIBITED = (
    "You do not have permission to access this resource. Please contact your administrator for"
    " assistance."
)
STAMPED = "0.12" in sys.argv[1:]
_COLUMNS = "email, salt, hash, name, role, id, active"
_TYPES = ("session", "automation", "subagent")
FOUR_WEEKS = 28 * 24 * 3600
PAGE = b"<!doctype html><title>Open WebUI</title><p>A double of Open WebUI: it has no interface."


class Refused(Exception):
    """An answer that FastAPI would give as `{"detail": ...}`."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def switched_on(variable: str, default: str) -> bool:
    """As the real one reads its environment."""
    return os.environ.get(variable, default).lower() == "true"


def engines() -> list[str]:
    return [url for url in os.environ.get("OPENAI_API_BASE_URLS", "").split(";") if url]


def settings() -> dict[str, Any]:
    """Some of its settings as they are at the start, by its own names."""
    return {
        "ui.enable_signup": switched_on("ENABLE_SIGNUP", "true"),
        "openai.api_base_urls": engines(),
        "web.search.enable": switched_on("ENABLE_WEB_SEARCH", "false"),
        "ui.default_models": None,
    }


def check_start() -> None:
    """What the real one ends at, and what it would do that nobody here answers."""
    if not os.environ.get("WEBUI_SECRET_KEY"):
        sys.exit("WEBUI_SECRET_KEY is not set. It is a hard requirement.")
    if not switched_on("OFFLINE_MODE", "false"):
        sys.exit("the double asks no hub and no GitHub; the real one would: set OFFLINE_MODE")
    if switched_on("ENABLE_OLLAMA_API", "true"):
        sys.exit("the real one would look for Ollama at host.docker.internal: ENABLE_OLLAMA_API")
    if not engines():
        sys.exit("the real one would ask api.openai.com: set OPENAI_API_BASE_URLS")
    # It copies its static files at each start, and demands that the directory is there.
    static = Path(os.environ.get("STATIC_DIR", "/app/backend/open_webui/static"))
    if not static.is_dir():
        sys.exit(f"RuntimeError: Directory '{static}' does not exist")
    (static / "favicon.png").write_bytes(b"")


class Accounts:
    """Users in a database on disk, as a rerun has to find them."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "webui.db"
        with self._open() as database:
            stamp = ", session_stamp" if STAMPED else ""
            database.execute(f"create table if not exists auth ({_COLUMNS}{stamp})")
            database.execute("create table if not exists user (id, role, created_at)")
        email, password = (os.environ.get(f"WEBUI_ADMIN_{each}") for each in ("EMAIL", "PASSWORD"))
        if email and password and not self.any():
            self.add(email, password, os.environ.get("WEBUI_ADMIN_NAME", "Admin"), "admin")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path)

    def any(self) -> bool:
        with self._open() as database:
            return bool(database.execute("select 1 from auth").fetchone())

    def add(self, email: str, password: str, name: str, role: str) -> dict[str, str]:
        salt = os.urandom(16)
        row = (email.lower(), salt, _hash(password, salt), name, role, str(uuid.uuid4()))
        with self._open() as database:
            database.execute(f"insert into auth ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, true)", row)
            if STAMPED:
                stamped = "update auth set session_stamp = ? where id = ?"
                database.execute(stamped, (str(uuid.uuid4()), row[5]))
            database.execute("insert into user values (?, ?, ?)", (row[5], role, int(time.time())))
        return {"email": row[0], "name": name, "role": role, "id": row[5]}

    def find(self, key: str, value: str) -> tuple[dict[str, str], bytes, bytes] | None:
        question = f"select email, name, role, id, salt, hash from auth where {key} = ?"
        with self._open() as database:
            row = database.execute(question, (value,)).fetchone()
        if row is None:
            return None
        return dict(zip(("email", "name", "role", "id"), row, strict=False)), row[4], row[5]

    def stamp(self, user: str) -> str | None:
        """What a login must have, from 0.12 on."""
        with self._open() as database:
            question = "select session_stamp from auth where id = ?"
            found = database.execute(question, (user,)).fetchone() if STAMPED else None
        return found[0] if found else None

    def signed_in(self, email: str, password: str) -> dict[str, str]:
        found = self.find("email", email.lower())
        if not found or not hmac.compare_digest(_hash(password, found[1]), found[2]):
            raise Refused(400, INVALID_CRED)
        return found[0]


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=1024, r=8, p=1)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signature(signed: str) -> str:
    key = os.environ["WEBUI_SECRET_KEY"].encode()
    return _b64(hmac.new(key, signed.encode(), hashlib.sha256).digest())


def token_for(user: dict[str, str], expires: int, stamp: str | None) -> str:
    """A JSON Web Token (RFC 7519) with HS256."""
    claims: dict[str, Any] = {"id": user["id"], "exp": expires, "jti": str(uuid.uuid4())}
    claims["iat"] = int(time.time())
    if STAMPED:
        claims |= {"typ": "session", "session_stamp": stamp}
    parts = [_b64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    return ".".join([*parts, _signature(".".join(parts))])


def claims_in(token: str) -> dict[str, Any]:
    signed, _, signature = token.rpartition(".")
    if not signed or not hmac.compare_digest(_signature(signed), signature):
        raise Refused(401, "Invalid token")
    claims = signed.partition(".")[2]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    if read["exp"] < time.time() or read.get("typ", "session") not in _TYPES:
        raise Refused(401, "Invalid token")
    return read


def ask(url: str, body: bytes | None = None) -> Any:
    """An answer of an engine."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def models() -> dict[str, str]:
    """Which engine has which model; one that is down has none."""
    found = {}
    for url in engines():
        try:
            found.update({each["id"]: url for each in ask(f"{url}/models")["data"]})
        except (urllib.error.URLError, ValueError, KeyError):
            continue
    return found


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms
    accounts: Accounts
    settings: dict[str, Any]

    def do_GET(self) -> None:
        well = {"status": True}
        routes: dict[str, Any] = {
            "/health": lambda: well,
            "/ready": lambda: well,
            "/health/db": lambda: well,
            "/api/config": self._config,
            "/api/v1/auths/": self._user,
            "/api/models": lambda: {"data": self._models()},
            "/api/v1/configs/export": self._settings,
        }
        if self.path.partition("?")[0] in routes:
            self._answer(routes[self.path.partition("?")[0]])
        else:
            self._send(200, PAGE, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        routes: dict[str, Any] = {
            "/api/v1/auths/signin": self._sign_in,
            "/api/v1/auths/signup": self._sign_up,
            "/api/chat/completions": self._complete,
            "/api/v1/configs/import": self._set,
        }
        if self.path in routes:
            self._answer(lambda: routes[self.path](json.loads(body)))
        else:
            self._send(405, json.dumps({"detail": "Method Not Allowed"}).encode())

    def _answer(self, route: Any) -> None:
        try:
            said = route()
        except Refused as refused:
            self._send(refused.status, json.dumps({"detail": str(refused)}).encode())
            return
        cookie = said.pop("set-cookie", None)
        self._send(200, json.dumps(said).encode(), cookie=cookie)

    def _config(self) -> dict[str, Any]:
        features = {
            "auth": switched_on("WEBUI_AUTH", "true"),
            "enable_signup": self.settings["ui.enable_signup"],
            "enable_login_form": True,
            "enable_websocket": True,
        }
        said = {"status": True, "name": "Open WebUI", "version": "0.10.2", "features": features}
        return said if self.accounts.any() else {"onboarding": True, **said}

    def _sign_in(self, form: dict[str, str]) -> dict[str, Any]:
        return self._session(self.accounts.signed_in(form["email"], form["password"]))

    def _sign_up(self, form: dict[str, str]) -> dict[str, Any]:
        first = not self.accounts.any()
        if not first and not self.settings["ui.enable_signup"]:
            raise Refused(403, ACCESS_PROHIBITED)
        if "@" not in form["email"]:
            raise Refused(400, "The email format you entered is invalid.")
        role = "admin" if first else "pending"
        user = self.accounts.add(form["email"], form["password"], form["name"], role)
        return self._session(user)

    def _session(self, user: dict[str, str]) -> dict[str, Any]:
        expires = int(time.time()) + FOUR_WEEKS
        token = token_for(user, expires, self.accounts.stamp(user["id"]))
        secure = "; Secure" if switched_on("WEBUI_SESSION_COOKIE_SECURE", "false") else ""
        cookie = f"token={token}; HttpOnly; Max-Age={FOUR_WEEKS}; Path=/; SameSite=lax{secure}"
        said = {"token": token, "token_type": "Bearer", "expires_at": expires, **user}
        return {**said, "set-cookie": cookie}

    def _user(self) -> dict[str, str]:
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("token")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        token = token or (cookie.value if cookie else "")
        if not token:
            raise Refused(401, "Not authenticated")
        claims = claims_in(token)
        found = self.accounts.find("id", claims["id"])
        if not found or claims.get("session_stamp") != self.accounts.stamp(claims["id"]):
            raise Refused(401, "Invalid token")
        return found[0]

    def _settings(self) -> dict[str, Any]:
        if self._user()["role"] != "admin":
            raise Refused(401, ACCESS_PROHIBITED)
        return dict(self.settings)

    def _set(self, form: dict[str, Any]) -> dict[str, Any]:
        self._settings()
        self.settings.update(form["config"])
        return self._settings()

    def _models(self) -> list[dict[str, str]]:
        self._user()
        return [{"id": each, "name": each, "object": "model"} for each in models()]

    def _complete(self, form: dict[str, Any]) -> dict[str, Any]:
        self._user()
        engine = models().get(form["model"])
        if engine is None:
            raise Refused(404, "Model not found")
        said: dict[str, Any] = ask(f"{engine}/chat/completions", json.dumps(form).encode())
        return said

    def _send(
        self, status: int, data: bytes, kind: str = "application/json", cookie: str | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def serve(port: int, address: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server that is bound and still has to be run."""
    check_start()
    Handler.settings = settings()
    Handler.accounts = Accounts(Path(os.environ.get("DATA_DIR", "/app/backend/data")))
    return ThreadingHTTPServer((address, port), Handler)


if __name__ == "__main__":
    # The first process of a container is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    serve(int(os.environ.get("PORT", "8080")), os.environ.get("HOST", "0.0.0.0")).serve_forever()
