"""Known vulnerabilities of engines, as OSV describes them. Pure.

The format: https://ossf.github.io/osv-schema/, and https://google.github.io/osv.dev/post-v1-query/.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

PACKAGES: Mapping[str, tuple[str, str]] = {
    "vllm": ("PyPI", "vllm"),
    "open_webui": ("PyPI", "open-webui"),
    "docling": ("PyPI", "docling-serve"),
    "chroma": ("PyPI", "chromadb"),
    "ollama": ("Go", "github.com/ollama/ollama"),
    "grafana": ("Go", "github.com/grafana/grafana"),
}
"""Ecosystem and name of each service whose releases OSV knows by their versions."""

_SEVERITIES = ("CRITICAL", "HIGH", "MODERATE", "LOW")
_SHOWN = 3


def query_of(service: str, tag: str) -> dict[str, Any] | None:
    """The question about a service with an image of this tag; None if OSV cannot know it."""
    version = re.match(r"v?(\d+(?:\.\d+)+)(?![\w.]*(?:rc|dev|alpha|beta))", tag)
    if service not in PACKAGES or not version:
        return None
    ecosystem, name = PACKAGES[service]
    return {"package": {"ecosystem": ecosystem, "name": name}, "version": version[1]}


def sentence(query: Mapping[str, Any], found: Iterable[Mapping[str, Any]]) -> str:
    """What is known of a version, the most severe first; empty if nothing is."""
    known = {_identifier(each): each for each in found if not each.get("withdrawn")}
    ranked = sorted(known, key=lambda name: (_rank(known[name]), name))
    if not ranked:
        return ""
    shown = [f"{name} ({_about(query, known[name])})" for name in ranked[:_SHOWN]]
    more = len(ranked) - len(shown)
    rest = f" and {more} more" if more else ""
    package = query["package"]
    place = f"https://osv.dev/list?ecosystem={package['ecosystem']}&q={package['name']}"
    return f"known vulnerabilities: {', '.join(shown)}{rest}; see {place}"


def _identifier(record: Mapping[str, Any]) -> str:
    """Its CVE, as operators know it."""
    aliases = [each for each in record.get("aliases", ()) if each.startswith("CVE-")]
    return min(aliases, default=str(record["id"]))


def _severity(record: Mapping[str, Any]) -> str:
    return str(record.get("database_specific", {}).get("severity", "")).upper()


def _rank(record: Mapping[str, Any]) -> int:
    severity = _severity(record)
    return _SEVERITIES.index(severity) if severity in _SEVERITIES else len(_SEVERITIES)


def _about(query: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    severity = _severity(record).lower() or "no severity given"
    fixed = sorted({*_fixes(query["package"], record)}, key=_numbers)
    later = [each for each in fixed if _numbers(each) > _numbers(query["version"])]
    return f"{severity}, {f'fixed in {later[0]}' if later else 'no fix known'}"


def _fixes(package: Mapping[str, str], record: Mapping[str, Any]) -> Iterator[str]:
    for affected in record.get("affected", ()):
        named = affected.get("package", {})
        if (named.get("ecosystem"), named.get("name")) == (package["ecosystem"], package["name"]):
            for each in affected.get("ranges", ()):
                if each.get("type") != "GIT":
                    yield from (str(e["fixed"]) for e in each.get("events", ()) if "fixed" in e)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
