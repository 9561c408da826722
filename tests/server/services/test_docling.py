"""docling-serve, from inside its container."""

import json
from typing import Any

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.services.inside import Inside
from llmhost.services.base import Request
from llmhost.services.docling import FORMULAS, PICTURES, SERVICE, enrichments, repository
from llmhost.settings import Settings

_REQUEST = """\
import sys, urllib.request
request = urllib.request.Request("http://127.0.0.1:5001" + sys.argv[1], sys.argv[2].encode())
request.add_header("Content-Type", "application/json")
print(urllib.request.urlopen(request, timeout=600).read().decode())
"""


@pytest.fixture(scope="module")
def docling(host: Host, settings: Settings) -> Inside:
    if "docling" not in settings.services:
        does_not_apply("the service docling is not declared")
    return Inside(host, settings, "docling")


def post(docling: Inside, request: Request, **options: Any) -> Any:
    """The answer to the request, with options of the conversion."""
    body = {**(request.body or {}), **({"options": options} if options else {})}
    return json.loads(docling.run("python3", "-c", _REQUEST, request.path, json.dumps(body)))


def test_document_becomes_text(docling: Inside, settings: Settings) -> None:
    request = SERVICE.request(settings.models_of("docling"))
    answer = post(docling, request)
    assert answer["status"] == "success"
    assert request.expects in answer["document"]["md_content"]


def test_document_becomes_chunks(docling: Inside, settings: Settings) -> None:
    _, request = SERVICE.requests(settings.models_of("docling"))
    chunks = post(docling, request)["chunks"]
    assert any(request.expects in chunk["text"] for chunk in chunks)


def _enriched(docling: Inside, settings: Settings, model: str) -> Any:
    """The answer for a document with a formula and a picture, by one of the additional models."""
    models = [each for each in settings.models_of("docling") if repository(each) == model]
    if not models:
        does_not_apply(f"no model of {model} is declared for docling")
    request = SERVICE.request(models)
    answer = post(docling, request, **enrichments(models), to_formats=["md", "json"])
    # Without the model, docling answers 404.
    assert answer["status"] == "success", answer["errors"]
    assert request.expects in answer["document"]["md_content"]
    return answer["document"]["json_content"]


def test_formulas_are_read(docling: Inside, settings: Settings) -> None:
    _enriched(docling, settings, FORMULAS)


def test_pictures_are_described(docling: Inside, settings: Settings) -> None:
    for picture in _enriched(docling, settings, PICTURES)["pictures"]:
        assert picture["meta"]["description"]["text"], picture


def test_no_model_hub_is_contacted(docling: Inside) -> None:
    assert docling.run("printenv", "HF_HUB_OFFLINE") == "1"
