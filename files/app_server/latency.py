"""Ask the gateway as an application does, and tell as JSON how long it takes.

Sent to an application server by `llmhost latency` and run there by whichever Python 3 it has; it
reads address and key from the file of environment variables, and prints neither.
"""

import http.client
import json
import socket
import ssl
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

CONNECT_SECONDS = 10


class Refused(Exception):
    """An answer that is no success: status, the gateway's code."""


def environment(path):
    lines = Path(path).read_text().splitlines()
    pairs = [line.partition("=") for line in lines if not line.startswith("#")]
    return {name: value.strip('"') for name, _, value in pairs}


class Api:
    """The gateway's interface; each request has a connection of its own."""

    def __init__(self, variables, timeout, chat):
        self.url = urlsplit(variables["OPENAI_BASE_URL"])
        self.chat = chat or self.url.path + "/chat/completions"
        self.timeout = timeout
        self.headers = {
            "Authorization": "Bearer " + variables["OPENAI_API_KEY"],
            "Content-Type": "application/json",
        }

    def connect(self):
        """A connection that is ready to be used, and the seconds of one round trip: TCP's own."""
        secure = self.url.scheme == "https"
        host, port = self.url.hostname, self.url.port or (443 if secure else 80)
        begun = time.perf_counter()
        wire = socket.create_connection((host, port), min(self.timeout, CONNECT_SECONDS))
        round_trip = time.perf_counter() - begun
        wire.settimeout(self.timeout)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if secure:
            wire = ssl.create_default_context().wrap_socket(wire, server_hostname=host)
        connection = http.client.HTTPConnection(host, port, timeout=self.timeout)
        connection.sock = wire
        return connection, round_trip

    def request(self, connection, method, path, body=None):
        data = None if body is None else json.dumps(body)
        connection.request(method, path, body=data, headers=self.headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise Refused(answer.status, code_of(answer.read()))
        return answer

    def first_model(self):
        connection, _ = self.connect()
        models = json.loads(self.request(connection, "GET", self.url.path + "/models").read())
        connection.close()
        return models["data"][0]["id"]

    def sample(self, model, tokens):
        """Seconds of one streamed answer: round trip, first token, tokens a second, in all."""
        connection, round_trip = self.connect()
        body = {
            "model": model,
            "stream": True,
            "max_tokens": tokens,
            "messages": [{"role": "user", "content": "Count from one to one hundred."}],
        }
        asked = time.perf_counter()
        times = [
            time.perf_counter()
            for line in self.request(connection, "POST", self.chat, body)
            if carries_token(line)
        ]
        done = time.perf_counter()
        connection.close()
        if not times:
            raise Refused(200, "no_token")
        lasted = times[-1] - times[0]
        return {
            "round_trip_seconds": round_trip,
            "first_token_seconds": times[0] - asked,
            "tokens": len(times),
            "tokens_per_second": (len(times) - 1) / lasted if lasted > 0 else None,
            "total_seconds": done - asked,
        }


def carries_token(line):
    """Whether a line of the stream holds a piece of the answer."""
    if not line.startswith(b"data: {"):
        return False
    choices = json.loads(line[len(b"data: ") :]).get("choices") or [{}]
    delta = choices[0].get("delta") or {}
    return bool(delta.get("content") or delta.get("reasoning_content"))


def code_of(body):
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def report(path, requests, tokens, model, timeout, chat):
    try:
        api = Api(environment(path), timeout, chat)
    except (OSError, KeyError):
        return {"error": "environment"}
    place = {"host": api.url.hostname, "port": api.url.port}
    try:
        model = model or api.first_model()
        api.sample(model, 1)  # it may have to be loaded first: that is not the network's doing
        samples = [api.sample(model, tokens) for _ in range(requests)]
        return {"model": model, "samples": samples, **place}
    except Refused as error:
        return {"error": "refused", "status": error.args[0], "code": error.args[1], **place}
    except ssl.SSLCertVerificationError as error:
        return {"error": "certificate", "detail": error.verify_message, **place}
    except ssl.SSLError as error:
        return {"error": "tls", "detail": error.reason or str(error), **place}
    except socket.gaierror as error:
        return {"error": "name", "detail": error.strerror, **place}
    except TimeoutError:
        return {"error": "silent", "detail": f"{timeout:g}", **place}
    except OSError as error:
        return {"error": "unreachable", "detail": error.strerror or str(error), **place}
    except (http.client.HTTPException, ValueError, LookupError) as error:
        return {"error": "answer", "detail": type(error).__name__, **place}


if __name__ == "__main__":
    path, requests, tokens, model, timeout, chat = sys.argv[1:]
    print(json.dumps(report(path, int(requests), int(tokens), model, float(timeout), chat)))
