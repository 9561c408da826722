"""A double of Grafana: its health, its login, its dashboards and its data source. No pages.

It proves that it is started with what it needs: variables of its configuration (conf/defaults.ini
of Grafana 12), provisioning files, dashboards; and that Prometheus is reached with the key (the
data source's proxy, pkg/api/pluginproxy). It refuses to start where the real one would let
strangers in or contact others. It needs the standard library only.
"""

import base64
import json
import os
import re
import secrets
import signal
import ssl
import sys
import urllib.error
import urllib.request
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CLOSED = {
    "GF_USERS_ALLOW_SIGN_UP": "false",
    "GF_AUTH_ANONYMOUS_ENABLED": "false",
    "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    "GF_NEWS_NEWS_FEED_ENABLED": "false",
    "GF_PLUGINS_PREINSTALL_DISABLED": "true",
}
PROVISIONING = Path(os.environ.get("GF_PATHS_PROVISIONING", "/etc/grafana/provisioning"))
SESSIONS: set[str] = set()


def check_start() -> None:
    for variable, value in CLOSED.items():
        if os.environ.get(variable) != value:
            sys.exit(f"{variable} is not {value}")
    if os.environ.get("GF_SECURITY_ADMIN_PASSWORD", "admin") == "admin":
        sys.exit("the administrator would have the password admin")
    (Path(os.environ["GF_PATHS_DATA"]) / "grafana.db").touch()


def expanded(text: str) -> str:
    """Variables of the environment, as Grafana replaces them in provisioning files."""
    return re.sub(r"\$(\w+)", lambda found: os.environ[found[1]], text)


def value(key: str, text: str) -> str:
    """One value of a provisioning file; the image has no YAML library."""
    found = re.search(rf"^ *{key}: (.+)$", text, re.MULTILINE)
    assert found, key
    return expanded(found[1])


def dashboards() -> list[dict[str, Any]]:
    provider = (PROVISIONING / "dashboards/llmhost.yaml").read_text()
    files = sorted(Path(value("path", provider)).glob("*.json"))
    return [json.loads(file.read_text()) for file in files]


def ask_prometheus(path: str) -> tuple[int, bytes]:
    """A request with the data source's address and header."""
    source = (PROVISIONING / "datasources/llmhost.yaml").read_text()
    header = {value("httpHeaderName1", source): value("httpHeaderValue1", source)}
    request = urllib.request.Request(f"{value('url', source)}{path}", headers=header)
    trusting = ssl.create_default_context()
    if value("tlsSkipVerify", source) == "true":
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(request, timeout=10, context=trusting) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        return 502, str(error).encode()


def is_admin(user: str, password: str) -> bool:
    name = os.environ.get("GF_SECURITY_ADMIN_USER", "admin")
    return user == name and secrets.compare_digest(
        password.encode(), os.environ["GF_SECURITY_ADMIN_PASSWORD"].encode()
    )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        proxied = "/api/datasources/proxy/uid/prometheus"
        if path == "/api/health":
            self._json(200, {"database": "ok", "version": "double of Grafana"})
        elif not self._is_signed_in():
            self._json(401, {"message": "Unauthorized"})
        elif path == "/api/search":
            self._json(200, [{"uid": each["uid"], "title": each["title"]} for each in dashboards()])
        elif self.path.startswith(proxied):
            status, body = ask_prometheus(self.path.removeprefix(proxied))
            self._send(status, body)
        else:
            self._json(404, {"message": "Not found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/user/signup":
            self._json(401, {"message": "User signup is disabled"})
        elif self.path != "/login":
            self._json(404, {"message": "Not found"})
        else:
            given = json.loads(body)
            if not is_admin(given["user"], given["password"]):
                self._json(401, {"message": "Invalid username or password"})
                return
            SESSIONS.add(session := secrets.token_hex(16))
            safe = "; Secure" if os.environ.get("GF_SECURITY_COOKIE_SECURE") == "true" else ""
            cookie = f"grafana_session={session}; Path=/; HttpOnly{safe}"
            self._json(200, {"message": "Logged in"}, cookie)

    def _is_signed_in(self) -> bool:
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        if kind == "Basic":
            user, _, password = base64.b64decode(given).decode().partition(":")
            return is_admin(user, password)
        cookie = SimpleCookie(self.headers.get("Cookie", ""))
        return "grafana_session" in cookie and cookie["grafana_session"].value in SESSIONS

    def _json(self, status: int, said: Any, cookie: str = "") -> None:
        self._send(status, json.dumps(said).encode(), cookie)

    def _send(self, status: int, data: bytes, cookie: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    check_start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    port = int(os.environ["GF_SERVER_HTTP_PORT"])
    ThreadingHTTPServer(("", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
