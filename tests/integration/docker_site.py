"""A machine with Docker, a registry beside it that serves the real engine, a tiny real model."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmhost.inventory.reader import read_settings
from llmhost.settings import Settings
from testbed import Lan, Machine, tiny_model
from testbed.engine import engine_archive, push_engine
from testbed.image_registry import ImageRegistry

_INSTALL = (
    "docker compose version && docker buildx version && command -v nft ||"
    " { apt-get -q update && apt-get -y -q --no-install-recommends install"
    " docker.io docker-cli docker-compose docker-buildx nftables; }"
)


@dataclass(frozen=True)
class DockerSite:
    """What a stack needs: where it runs, the engine's reference, a model on the controller."""

    machine: Machine
    registry: ImageRegistry
    engine: str
    model: Path
    model_sha256: str

    def settings(self, model: dict[str, Any] | None = None, **changes: Any) -> Settings:
        """One llamacpp with the tiny model; `model` and `changes` override single options."""
        return read_settings(self.data(model) | changes)

    def data(self, model: dict[str, Any] | None = None) -> dict[str, Any]:
        """The same as an inventory has it."""
        weights = {
            "name": "tiny",
            "source": str(self.model),
            "sha256": self.model_sha256,
            "context_tokens": 512,
        }
        return {
            "services": ["llamacpp"],
            "llamacpp_image": self.engine,
            "models": [weights | (model or {})],
            "api_clients": [{"name": "test", "sha256": "ab" * 32}],
        }

    def other_engine(self) -> str:
        """The same engine under another name, as if it were another version."""
        return self.registry.push("other-engine", "1", engine_archive())

    def forget_images(self) -> None:
        """Leave nothing of the stack on the machine."""
        self.machine.ssh(
            "docker ps -aq --filter label=com.docker.compose.project=llmhost"
            " | xargs -r docker rm -f; docker image ls -q 'llmhost/*' | xargs -r docker rmi -f;"
            " rm -rf /opt/llmhost"
        )


@contextmanager
def docker_site(lan: Lan, machine: Machine, directory: Path) -> Iterator[DockerSite]:
    """Install Docker and nftables from Debian if need be; Docker trusts this LAN's registry."""
    machine.ssh(_INSTALL)
    with ImageRegistry(lan.gateway, directory / "registry") as registry:
        options = json.dumps({"insecure-registries": [registry.name]})
        machine.ssh(
            "mkdir -p /etc/docker; cat >/etc/docker/daemon.json; systemctl restart docker",
            input=options,
        )
        model = directory / "tiny.gguf"
        sha256 = tiny_model.write(model)
        site = DockerSite(machine, registry, push_engine(registry), model, sha256)
        site.forget_images()
        yield site
        site.forget_images()
