"""The document of one host of a site."""

import shlex
from collections.abc import Mapping
from typing import Any

from llmhost.inventory.site import SiteHost
from llmhost.resources import FILES
from llmhost.sbom.document import document
from llmhost.sbom.models import about
from llmhost.version import toolkit


def read_command(host: SiteHost) -> str:
    """Shell command for root that prints the packages of the host and of its containers."""
    settings = host.settings
    words = [(FILES / "sbom/read.py").read_text(encoding="utf-8"), settings.stack.project]
    return shlex.join(["python3", "-I", "-c", *words, *settings.services])


def host_document(host: SiteHost, found: Mapping[str, Any]) -> str:
    """From the host's answer, and the inventory, which knows engines and models."""
    settings = host.settings
    containers = [
        {**each, "engine": settings.options(each["service"]).image} for each in found["containers"]
    ]
    models = [about(model, settings.baked(model)) for model in settings.models]
    version = str(toolkit()["version"])
    return document(host.name, {**found, "containers": containers}, models, version)
