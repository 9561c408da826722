"""Latency of the gateway for an application server: from samples to a report. Pure.

The samples come from files/app_server/latency.py, run on the application server.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

MEASURES = {
    "round_trip_seconds": "round trip",
    "first_token_seconds": "first token",
    "tokens_per_second": "tokens per second",
    "total_seconds": "whole answer",
}
"""Measures of a sample, with their names in a report."""

SCHEMA = 1
_BETTER_HIGH = {"tokens_per_second"}


@dataclass(frozen=True)
class Report:
    """One application server and role (`model`). `measures` has `p50` and `p95` by measure; 95 of
    100 requests are not worse than p95. If `error` is a sentence, there are no measures."""

    host: str
    model: str = ""
    requests: int = 0
    tokens: int = 0
    measures: Mapping[str, Mapping[str, float]] | None = None
    error: str = ""


@dataclass(frozen=True)
class LatencyReport:
    """The output of `llmhost latency --json`."""

    schema: int
    hosts: tuple[Report, ...]


def report(host: str, role: str, lines: Sequence[str]) -> Report:
    """From the output of the script that called this role."""
    try:
        result = json.loads(lines[-1])
    except (IndexError, ValueError):
        return Report(host, role, error="the measurement stopped without a result")
    if "error" in result:
        return Report(host, role, error=sentence(result))
    samples: list[dict[str, Any]] = result["samples"]
    measures = {}
    for measure in MEASURES:
        values = [sample[measure] for sample in samples if sample[measure] is not None]
        if values:
            measures[measure] = {
                "p50": percentile(values, 50),
                "p95": percentile(values, 5 if measure in _BETTER_HIGH else 95),
            }
    tokens = sum(sample["tokens"] for sample in samples)
    return Report(host, result["model"], len(samples), tokens, measures)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile, which is a measured value."""
    ranked = sorted(values)
    return ranked[max(1, ceil(len(ranked) * percent / 100)) - 1]


_REFUSALS = {
    401: "the key is unknown; is it in the server's api_clients, and deployed there?",
    403: "the key is not for this route, or not for this network: see the client's scope and"
    " sources in api_clients",
    404: "no service offers it",
    421: "the name is not in the server's gateway_names",
    429: "the client exceeds its requests_per_minute or concurrent_streams; measure with fewer"
    " --requests",
    502: "the engine behind it is down",
    504: "the engine behind it is too slow",
}


def sentence(result: Mapping[str, Any]) -> str:
    """What went wrong, and what to do."""
    server = f"{result.get('host')}:{result.get('port')}"
    detail = result.get("detail", "")
    if result["error"] == "refused":
        status, code = result["status"], result["code"]
        why = _REFUSALS.get(status, "it sent no token" if code == "no_token" else "see its log")
        return f"{server} answers with {status} {code}".rstrip() + f": {why}"
    return {
        "python": "this host has no python3: install it, or measure from another host",
        "environment": "the environment file of this host cannot be read; deploy the host first",
        "certificate": f"this host does not trust the certificate of {server} ({detail}); deploy"
        " this host again from the controller with the site's CA",
        "tls": f"{server} refuses the TLS handshake ({detail}); check that its name is in the"
        " server's gateway_names",
        "name": f"the name {result.get('host')} is unknown on this host ({detail}); deploy this"
        " host again",
        "silent": f"{server} did not answer for {detail} s; check that it is up and this host is in"
        " its gateway_sources",
        "unreachable": f"{server} cannot be reached ({detail}); check that it is up",
        "answer": f"{server} sent an answer that cannot be parsed ({detail})",
    }[result["error"]]
