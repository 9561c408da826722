"""An engine over several hosts: what its container gets on each of them (docs/decisions/0122)."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from llmhost.docker.build_context import context_files
from llmhost.options.engine_group import EngineGroup
from llmhost.resources import FILES
from llmhost.secret import read_secret
from llmhost.services.base import AnyService
from llmhost.services.vllm import OF_A_HOST
from llmhost.settings import Settings
from llmhost.system.files import File
from llmhost.system.pip import pip_configuration

PORTS = "1024:65535"
"""Ports that members may reach: Ray, PyTorch and NCCL choose theirs among all of these."""

PROGRAM = "/opt/llmhost/engine_group.py"

_IN_IMAGE = """FROM base

# Engines for one host have no Ray. The only step that needs a network; hashes decide.
USER 0:0
COPY ray.lock pip.conf /opt/llmhost/
RUN PIP_CONFIG_FILE=/opt/llmhost/pip.conf python3 -m pip install --no-cache-dir \\
    --disable-pip-version-check --root-user-action ignore --only-binary :all: --require-hashes \\
    --no-deps --target /opt/llmhost/ray --requirement /opt/llmhost/ray.lock
COPY engine_group.py /opt/llmhost/engine_group.py
"""


@dataclass(frozen=True)
class Member:
    """This host in its group."""

    group: EngineGroup
    gpus: int
    name: str
    token: str

    @property
    def is_head(self) -> bool:
        return self.name == self.group.head

    @property
    def address(self) -> IPv4Address:
        return self.group.members[self.name]

    @property
    def others(self) -> tuple[IPv4Address, ...]:
        return others_of(self.group, self.name)

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables of the container."""
        head, own = self.group.members[self.group.head or ""], str(self.address)
        return {
            "LLMHOST_GROUP_HEAD": f"{head}:{self.group.port}",
            "LLMHOST_GROUP_OWN": own,
            "LLMHOST_GROUP_MEMBERS": " ".join(str(self.group.members[n]) for n in self.group.names),
            "LLMHOST_GROUP_GPUS": str(self.gpus),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "VLLM_HOST_IP": own,
            "GLOO_SOCKET_IFNAME": str(self.group.interface),
            "NCCL_SOCKET_IFNAME": f"={self.group.interface}",
        }


def others_of(group: EngineGroup, name: str) -> tuple[IPv4Address, ...]:
    """Addresses of the other members, in a fixed order."""
    return tuple(group.members[each] for each in sorted(group.members) if each != name)


def member_of(settings: Settings, service: AnyService, image: str) -> Member | None:
    """This host's part of an engine; None if the service runs on this host alone."""
    if service.name not in settings.group_services:
        return None
    group = settings.engine_group
    gpus = settings.options(service.name).gpu_request
    secret = read_secret(group.token) if group.token else ""
    return Member(group, gpus.count if gpus else 1, settings.member, token_for(secret, image))


def token_for(secret: str, image: str) -> str:
    """The token by which members recognize each other. It depends on the image, which names the
    weights: a member that still has others cannot compute a part of the model."""
    return hmac.new(secret.encode(), image.encode(), hashlib.sha256).hexdigest()


def shared_digest(settings: Settings, images: Mapping[str, str]) -> str:
    """SHA-256 of what the members of a group must have in common, by which a rollback finds the
    deploys of other members that fit; `images` are references by service. It does not tell the
    secret, which is too long to be guessed."""
    group = settings.engine_group
    secret = read_secret(group.token) if group.token else ""
    shared = {
        name: [
            token_for(secret, images[name]),
            settings.options(name).model_dump(mode="json", exclude=OF_A_HOST),
            [model.model_dump(mode="json") for model in settings.models_of(name)],
        ]
        for name in settings.group_services
    }
    own = group.model_dump(mode="json", exclude={"interface", "package_index", "token"})
    text = json.dumps([own, shared], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def with_ray(context: tuple[File, ...], package_index: str | None) -> tuple[File, ...]:
    """The build context of an engine that also has Ray, and the program that starts both."""
    first = _IN_IMAGE.partition("\n")[0]
    return (
        *(
            File(each.path, each.data.decode().replace(f"{first}\n", _IN_IMAGE, 1))
            if each.path == "Dockerfile"
            else each
            for each in context
        ),
        *context_files(FILES / "images" / "vllm_group"),
        pip_configuration(package_index),
    )
