"""Models as an inventory declares them."""

from typing import Any

import pytest
from pydantic import ValidationError

from llmhost.settings.model import Model

GOOD: dict[str, Any] = {"name": "tiny", "source": "weights/tiny.gguf", "sha256": "ab" * 32}
COMMIT = "12" * 20


def test_file_on_the_controller_is_uploaded() -> None:
    model = Model(**GOOD)
    assert (model.kind, model.path) == ("file", "/models/tiny.gguf")


@pytest.mark.parametrize(
    ("source", "url", "path"),
    [
        (
            "hf:org/some-repo/q4/weights.gguf",
            f"https://huggingface.co/org/some-repo/resolve/{COMMIT}/q4/weights.gguf",
            "/models/tiny.gguf",
        ),
        (
            "https://mirror.example/a/b.gguf?download=true",
            "https://mirror.example/a/b.gguf?download=true",
            "/models/tiny.gguf",
        ),
        ("http://10.0.0.1/weights.bin", "http://10.0.0.1/weights.bin", "/models/tiny.bin"),
    ],
)
def test_address_is_downloaded_by_the_host(source: str, url: str, path: str) -> None:
    model = Model(**GOOD | {"source": source, "revision": COMMIT})
    assert (model.kind, model.url, model.path) == ("url", url, path)


MISTAKES: dict[str, dict[str, Any]] = {
    "comes from a hub without a revision": {"source": "hf:org/repo/file.gguf"},
    "does not read hf:PUBLISHER/REPOSITORY/FILE": {"source": "hf:repo", "revision": COMMIT},
    "must be hf:PUBLISHER/REPOSITORY/FILE, an https:// address or a path": {"source": "ftp://a/b"},
    "revision": {"revision": "main"},
    "sha256": {"sha256": "ab"},
    "parallel": {"parallel": 0},
}


@pytest.mark.parametrize("name", ["Tiny", "a b", "a..b", "-a", "a-", "a___b", "a" * 64, "a/b", ""])
def test_name_that_no_image_could_have_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Model(**GOOD | {"name": name})


@pytest.mark.parametrize("name", ["a", "qwen2.5-coder", "llama_3", "a__b", "a--b", "0"])
def test_name_that_an_image_can_have_is_taken(name: str) -> None:
    assert Model(**GOOD | {"name": name}).name == name


@pytest.mark.parametrize("told", MISTAKES)
def test_mistake_is_refused(told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Model(**GOOD | MISTAKES[told])
    assert told in str(refused.value)
