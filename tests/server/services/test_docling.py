"""docling-serve, from inside its container."""

import base64
import json

import pytest
from testinfra.host import Host

from llmhost.checks.applies import does_not_apply
from llmhost.checks.services.inside import Inside
from llmhost.settings import Settings

_REQUEST = """\
import sys, urllib.request
request = urllib.request.Request("http://127.0.0.1:5001/v1/convert/source", sys.argv[1].encode())
request.add_header("Content-Type", "application/json")
print(urllib.request.urlopen(request, timeout=120).read().decode())
"""


@pytest.fixture(scope="module")
def docling(host: Host, settings: Settings) -> Inside:
    if "docling" not in settings.services:
        does_not_apply("the service docling is not declared")
    return Inside(host, settings, "docling")


def test_document_becomes_text(docling: Inside) -> None:
    text = "# Title\n\nA sentence.\n"
    content = base64.b64encode(text.encode()).decode()
    source = {"kind": "file", "filename": "check.md", "base64_string": content}
    said = docling.run("python3", "-c", _REQUEST, json.dumps({"sources": [source]}))
    answer = json.loads(said)
    assert answer["status"] == "success"
    assert "A sentence." in answer["document"]["md_content"]


def test_no_model_hub_is_contacted(docling: Inside) -> None:
    assert docling.run("printenv", "HF_HUB_OFFLINE") == "1"
