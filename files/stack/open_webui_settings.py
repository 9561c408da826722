"""Says, a line each, which settings of a running Open WebUI are not those that it was started with.

Runs inside its container, with the standard library alone. Where its database does not count
(ENABLE_PERSISTENT_CONFIG), what an administrator sets on its pages is kept by the process only: it
has to be asked, and answers administrators (models/config.py and routers/configs.py of 0.10.2). The
question is signed as a login of the first of them, good for a minute. From 0.12 on, a login needs
the account's stamp, and one that is not a person's needs a type (utils/auth.py, is_valid_token).
"""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import time
import urllib.request
import uuid

# Variables by what Open WebUI calls their settings.
SWITCHES = {
    "direct.enable": "ENABLE_DIRECT_CONNECTIONS",
    "evaluation.arena.enable": "ENABLE_EVALUATION_ARENA_MODELS",
    "ollama.enable": "ENABLE_OLLAMA_API",
    "openai.enable": "ENABLE_OPENAI_API",
    "ui.enable_community_sharing": "ENABLE_COMMUNITY_SHARING",
    "ui.enable_signup": "ENABLE_SIGNUP",
    "web.search.enable": "ENABLE_WEB_SEARCH",
}
LISTS = {"openai.api_base_urls": "OPENAI_API_BASE_URLS"}
TEXTS = {
    "rag.embedding_engine": "RAG_EMBEDDING_ENGINE",
    "rag.embedding_model": "RAG_EMBEDDING_MODEL",
    "rag.openai.api_base_url": "RAG_OPENAI_API_BASE_URL",
    "webui.url": "WEBUI_URL",
}


def started_with() -> dict[str, object]:
    """The settings that its environment has."""
    values: dict[str, object] = {}
    for names, read in ((SWITCHES, _switch), (LISTS, _list), (TEXTS, str)):
        given = {key: os.environ[name] for key, name in names.items() if name in os.environ}
        values.update({key: read(text) for key, text in given.items()})
    return values


def _switch(text: str) -> bool:
    return text.lower() == "true"


def _list(text: str) -> list[str]:
    return [each.strip() for each in text.split(";")]


def administrator() -> dict[str, object]:
    """The claims that identify the first administrator who may log in."""
    with sqlite3.connect(f"file:{os.environ['DATA_DIR']}/webui.db?mode=ro", uri=True) as database:
        question = "select id from user where role = 'admin' order by created_at"
        active = {user for (user,) in database.execute("select id from auth where active")}
        user = next(user for (user,) in database.execute(question) if user in active)
        columns = [column for _, column, *_ in database.execute("pragma table_info(auth)")]
        if "session_stamp" not in columns:
            return {"id": user}
        question = "select session_stamp from auth where id = ?"
        (stamp,) = database.execute(question, (user,)).fetchone()
        return {"id": user, "typ": "automation", "session_stamp": stamp}


def login(account: dict[str, object]) -> str:
    """A JSON Web Token (RFC 7519) with HS256."""
    now = int(time.time())
    claims = {**account, "iat": now, "exp": now + 60, "jti": str(uuid.uuid4())}
    parts = [
        _encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)
    ]
    signed = ".".join(parts)
    key = os.environ["WEBUI_SECRET_KEY"].encode()
    return f"{signed}.{_encoded(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def at_present() -> dict[str, object]:
    """All settings that count now."""
    url = f"http://127.0.0.1:{os.environ['PORT']}/api/v1/configs/export"
    request = urllib.request.Request(
        url, headers={"Authorization": f"Bearer {login(administrator())}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 (our own URL)
        return dict(json.load(answer))


def main() -> None:
    found = at_present()
    for key, wanted in sorted(started_with().items()):
        if key in found and found[key] != wanted:
            print(f"{key} was set to {json.dumps(found[key])}, not {json.dumps(wanted)}")


if __name__ == "__main__":
    main()
