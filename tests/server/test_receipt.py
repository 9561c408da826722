"""The receipt of a provisioned server matches the server."""

import json
from typing import Any

import pytest

from llmhost.checks.command_log import guard
from llmhost.checks.conftest import Containers
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def receipt(host: Any, settings: Settings) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(host.file(settings.receipt.path).content_string)
    return content


def test_receipt_is_of_these_settings(receipt: dict[str, Any], settings: Settings) -> None:
    assert receipt["settings"] == settings.digest


def test_receipt_names_the_models_by_hash(receipt: dict[str, Any], settings: Settings) -> None:
    # By name and service, if several services share the requests for a model.
    assert receipt["models"] == {
        f"{model.name}/{model.service}"
        if model.name in settings.gateway.shares
        else model.name: model.digest
        for model in settings.models
    }


def test_receipt_names_the_images_that_run(
    receipt: dict[str, Any], all_containers: Containers, settings: Settings
) -> None:
    running = {all_containers[name]["Image"] for name in settings.services}
    assert set(receipt["images"].values()) == running


def test_receipt_names_what_is_installed(host: Any, receipt: dict[str, Any]) -> None:
    versions = dict(receipt["versions"])
    assert versions.pop("kernel") == host.check_output("uname -r")
    versions.pop("nvidia_driver", None)
    assert "nginx" in versions
    query = f"dpkg-query -W -f '${{Package}} ${{Version}}\\n' {' '.join(versions)}"
    assert dict(line.split() for line in host.run(query).stdout.splitlines()) == versions


def test_receipt_names_the_toolkit(receipt: dict[str, Any]) -> None:
    assert {"version", "revision", "modified"} == set(receipt["toolkit"])


def test_receipt_is_writable_only_by_root(host: Any, settings: Settings) -> None:
    assert guard(host, settings.receipt.path) == "root:root 0644"
