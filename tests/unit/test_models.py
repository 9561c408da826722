"""Models as an inventory declares them."""

from typing import Any

import pytest
from pydantic import ValidationError

from llmhost.options.model import Model

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
    assert (model.kind, model.path, model.places) == ("url", path, {path: url})


MISTAKES: dict[str, dict[str, Any]] = {
    "is not pinned to a revision of its hub": {"source": "hf:org/repo/file.gguf"},
    "write 'hf:PUBLISHER/REPOSITORY/FILE'": {"source": "hf:repo", "revision": COMMIT},
    "is a URL of another scheme": {"source": "ftp://a/b"},
    "write 'ollama:NAME:TAG'": {"source": "ollama:name"},
    "has neither sha256 nor files": {"sha256": None},
    "which sha256 cannot pin": {"source": "ollama:library/name:1b"},
    "write a relative path": {
        "sha256": None,
        "files": [{"path": "../a", "sha256": "ab" * 32}],
    },
    "revision": {"revision": "main"},
    "sha256": {"sha256": "ab"},
    "parallel": {"parallel": 0},
}


@pytest.mark.parametrize(
    ("address", "source"),
    [
        (
            "https://huggingface.co/org/repo/blob/main/q4/weights.gguf",
            "hf:org/repo/q4/weights.gguf",
        ),
        ("https://huggingface.co/org/repo/tree/main", "hf:org/repo"),
        ("https://huggingface.co/org/repo?library=x", "hf:org/repo"),
        ("https://hf.co/org/repo", "hf:org/repo"),
        ("https://user:s3cret@huggingface.co/models", "hf:PUBLISHER/REPOSITORY/FILE"),
        ("https://ollama.com/library/llama3.2", "ollama:llama3.2:TAG"),
        ("https://ollama.com/library/llama3.2:3b", "ollama:llama3.2:3b"),
        ("https://ollama.com/bona/bge-m3-korean:latest", "ollama:bona/bge-m3-korean:latest"),
        ("https://ollama.com/search?q=llama", "ollama:NAME:TAG"),
    ],
)
def test_web_page_about_a_model_is_refused_with_its_source(address: str, source: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Model(**GOOD | {"source": address})
    [detail] = refused.value.errors()
    assert "is the URL of a web page" in detail["msg"] and f"write '{source}'" in detail["msg"]
    assert "s3cret" not in detail["msg"]


def test_file_at_hugging_face_may_be_given_by_its_own_url() -> None:
    address = f"https://huggingface.co/org/repo/resolve/{COMMIT}/weights.gguf"
    assert Model(**GOOD | {"source": address}).kind == "url"


FILES = [{"path": "config.json", "sha256": "ab" * 32}, {"path": "a/b.bin", "sha256": "cd" * 32}]
HUB = f"https://huggingface.co/org/repo/resolve/{COMMIT}"


def test_repository_is_all_its_files() -> None:
    model = Model(name="m", source="hf:org/repo", revision=COMMIT, files=FILES)
    assert model.path == "/models/m"
    assert model.baked == {"/models/m/config.json": "ab" * 32, "/models/m/a/b.bin": "cd" * 32}
    assert list(model.places.values()) == [f"{HUB}/config.json", f"{HUB}/a/b.bin"]


def test_directory_is_all_its_files() -> None:
    model = Model(name="m", source="weights/m/", files=FILES)
    assert model.kind == "file"
    assert list(model.places.values()) == ["weights/m/config.json", "weights/m/a/b.bin"]


def test_model_of_ollama_s_library_is_its_manifest_and_blobs() -> None:
    files = [{"path": "manifest", "sha256": "ab" * 32}, {"path": "sha256-12", "sha256": "cd" * 32}]
    model = Model(name="m", source="ollama:bona/bge-m3-korean:latest", files=files)
    library = "https://registry.ollama.ai/v2/bona/bge-m3-korean"
    assert list(model.places.values()) == [
        f"{library}/blobs/sha256:{'ab' * 32}",
        f"{library}/blobs/sha256:12",
    ]


def test_digest_changes_with_every_file() -> None:
    one = Model(name="m", source="weights/m", files=FILES)
    other = Model(name="m", source="weights/m", files=[FILES[0], FILES[1] | {"path": "c.bin"}])
    assert one.digest != other.digest
    assert Model(**GOOD).digest == "ab" * 32


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
