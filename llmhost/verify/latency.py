"""How fast the gateway answers an application server: from samples to a report. Pure.

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
"""What a sample measures, and how people call it."""

_BETTER_HIGH = {"tokens_per_second"}


@dataclass(frozen=True)
class Report:
    """One application server. `measures` holds `p50` and `p95` by measure; a p95 is a value that
    95 of 100 requests are not worse than. `error` is a sentence, and then there is nothing else."""

    host: str
    model: str = ""
    requests: int = 0
    tokens: int = 0
    measures: Mapping[str, Mapping[str, float]] | None = None
    error: str = ""


def report(host: str, lines: Sequence[str]) -> Report:
    """From what the script printed."""
    try:
        told = json.loads(lines[-1])
    except (IndexError, ValueError):
        return Report(host, error="the measurement broke off without a word")
    if "error" in told:
        return Report(host, error=sentence(told))
    samples: list[dict[str, Any]] = told["samples"]
    measures = {}
    for measure in MEASURES:
        values = [sample[measure] for sample in samples if sample[measure] is not None]
        if values:
            measures[measure] = {
                "p50": percentile(values, 50),
                "p95": percentile(values, 5 if measure in _BETTER_HIGH else 95),
            }
    tokens = sum(sample["tokens"] for sample in samples)
    return Report(host, told["model"], len(samples), tokens, measures)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: a value that was really measured."""
    ranked = sorted(values)
    return ranked[max(1, ceil(len(ranked) * percent / 100)) - 1]


_REFUSALS = {
    401: "it does not know the key; is it among the server's api_clients, and deployed there?",
    403: "the key is not for this route, or not for this network: see the client's scope and"
    " sources in api_clients",
    404: "no service offers it",
    421: "the name is none of the server's gateway_names",
    429: "the client's requests_per_minute or concurrent_streams are used up; measure with fewer"
    " --requests",
    502: "the engine behind it is down",
    504: "the engine behind it is too slow",
}


def sentence(told: Mapping[str, Any]) -> str:
    """What went wrong, and what to do."""
    server = f"{told.get('host')}:{told.get('port')}"
    detail = told.get("detail", "")
    if told["error"] == "refused":
        status, code = told["status"], told["code"]
        why = _REFUSALS.get(status, "it gave no token" if code == "no_token" else "see its log")
        return f"{server} answers with {status} {code}".rstrip() + f": {why}"
    return {
        "python": "there is no python3 on this host: install it, or measure from another host",
        "environment": "the file of environment variables can not be read; deploy the host first",
        "certificate": f"the certificate of {server} is not trusted ({detail}); deploy this host"
        " again, from the controller that holds the site's authority",
        "tls": f"{server} refuses the TLS handshake ({detail}); is its name among the server's"
        " gateway_names?",
        "name": f"the name {told.get('host')} is unknown on this host ({detail}); deploy it again",
        "silent": f"{server} was silent for {detail} s; is this host among the server's"
        " gateway_sources, and the server up?",
        "unreachable": f"{server} can not be reached ({detail}); is the server up?",
        "answer": f"{server} gave an answer that can not be read ({detail})",
    }[told["error"]]
