"""`llmhost bundle` says what is wrong in a sentence, before it talks to any host."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from llmhost.bundle.file import write_bundle
from llmhost.bundle.key import signing_key
from llmhost.bundle.manifest import Manifest, Release
from llmhost.bundle.parts import Parts
from llmhost.host_packages import host_packages
from llmhost.inventory.reader import read_settings
from llmhost.inventory.site import SiteHost

IMAGE = "registry.example/llama:1@sha256:" + "0" * 64
WEIGHTS = "https://models.example/tiny.gguf"
DATA: dict[str, Any] = {
    # Nobody answers there, and a refusal must not even ask.
    "ssh_hostname": "192.0.2.1",
    "api_clients": [{"name": "test", "sha256": "ab" * 32}],
    "services": ["llamacpp"],
    "llamacpp_image": IMAGE,
    "models": [{"name": "tiny", "source": WEIGHTS, "sha256": "cd" * 32, "context_tokens": 512}],
}


def llmhost(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: reading an inventory patches sockets and threads."""
    command = [sys.executable, "-m", "llmhost.cli", "bundle", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def refusal(ran: "subprocess.CompletedProcess[str]") -> str:
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    (line,) = ran.stderr.splitlines()
    return line.removeprefix("error: ")


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    file = tmp_path / "site.py"
    file.write_text(f"servers = [('llm-server', {DATA!r})]\n")
    return file


def bundle(
    place: Path, key: Ed25519PrivateKey, packages: tuple[str, ...], images: dict[str, str]
) -> Path:
    parts = Parts(place / "parts")
    manifest = Manifest(
        created="now",
        toolkit={},
        release=Release("debian", "13", "amd64"),
        python="",
        settings={},
        packages=packages,
        images=images,
        parts=(parts.keep("images/a.tar", b"a" * 20480),),
    )
    write_bundle(place / "site.bundle", manifest, place / "parts", key)
    return place / "site.bundle"


@pytest.fixture
def key(tmp_path: Path) -> Ed25519PrivateKey:
    return signing_key(tmp_path / "keys")


def apply(file: Path, inventory: Path) -> "subprocess.CompletedProcess[str]":
    return llmhost("apply", file, inventory, "--key", inventory.parent / "keys/bundle.pub")


def test_truncated_bundle_is_refused(
    tmp_path: Path, inventory: Path, key: Ed25519PrivateKey
) -> None:
    file = bundle(tmp_path, key, (), {})
    file.write_bytes(file.read_bytes()[:15_000])
    assert refusal(apply(file, inventory)) == (f"{file} is cut off: copy it again from its source")


def test_bundle_without_what_the_inventory_needs_is_refused(
    tmp_path: Path, inventory: Path, key: Ed25519PrivateKey
) -> None:
    host = SiteHost("llm-server", read_settings(DATA))
    names = tuple(host_packages(host, "debian", "13"))
    sentence = refusal(apply(bundle(tmp_path, key, names, {}), inventory))
    assert sentence.startswith("llm-server needs the image llmhost/llamacpp:")
    assert sentence.endswith("recreate the bundle from this inventory with this llmhost")


def test_missing_key_is_told_with_what_to_do(
    tmp_path: Path, inventory: Path, key: Ed25519PrivateKey
) -> None:
    file = bundle(tmp_path, key, (), {})
    (tmp_path / "keys/bundle.pub").unlink()
    assert refusal(apply(file, inventory)).startswith(
        "no key to check the bundle with: copy bundle.pub from the machine that created the"
    )


def test_missing_file_is_told(tmp_path: Path, inventory: Path, key: Ed25519PrivateKey) -> None:
    nowhere = tmp_path / "nowhere"
    assert (
        refusal(apply(nowhere, inventory)) == f"{nowhere} cannot be read: No such file or directory"
    )


def test_mistaken_inventory_makes_no_bundle(tmp_path: Path, inventory: Path) -> None:
    inventory.write_text(inventory.read_text().replace("llamacpp_image", "llamacpp_imag"))
    output = tmp_path / "site.bundle"
    ran = llmhost("create", inventory, "-o", output, "--key", tmp_path / "keys")
    assert ran.returncode == 1 and "did you mean llamacpp_image?" in ran.stderr
    assert not output.exists() and not (tmp_path / "keys").exists()


def test_builder_that_can_not_be_reached_is_told(tmp_path: Path, inventory: Path) -> None:
    config = tmp_path / "ssh_config"
    config.write_text("Host build-box\n  HostName 127.0.0.1\n  Port 9\n")
    options = ["--builder", "build-box", "--ssh-config", str(config)]
    options += ["--key", str(tmp_path / "keys"), "-o", str(tmp_path / "site.bundle")]
    sentence = refusal(llmhost("create", inventory, *options))
    assert sentence.startswith("build-box: ") and "Connection refused" in sentence


def test_builder_without_docker_is_told(tmp_path: Path, inventory: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "id", "dpkg"):
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    command = ["env", f"PATH={tools}", sys.executable, "-m", "llmhost.cli", "bundle", "create"]
    command += [str(inventory), "-o", str(tmp_path / "site.bundle"), "--key", str(tmp_path / "k")]
    sentence = refusal(subprocess.run(command, capture_output=True, text=True, timeout=600))
    assert sentence.startswith(
        "this machine lacks gpg, docker, curl, docker buildx: install it there"
    )


@pytest.mark.parametrize("command", ["create", "apply"])
def test_inventory_is_read_once(tmp_path: Path, command: str) -> None:
    """It is a program: it may prompt for a password, or take long."""
    count = tmp_path / "count"
    file = tmp_path / "site.py"
    file.write_text(f"open({str(count)!r}, 'a').write('x')\nservers = [('llm-server', {DATA!r})]\n")
    keys = ("--key", tmp_path / "keys")
    if command == "create":
        ran = llmhost(command, file, "-o", tmp_path / "b", "--builder", "no-host.invalid", *keys)
    else:
        signing_key(tmp_path / "keys")
        ran = llmhost(
            command, tmp_path / "none.bundle", file, "--key", tmp_path / "keys/bundle.pub"
        )
    assert refusal(ran)
    assert count.read_text() == "x"
