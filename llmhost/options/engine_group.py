"""`engine_group_*`: hosts that together run one model, which is too large for one of them."""

from ipaddress import IPv4Address
from typing import Annotated

from pydantic import Field

from llmhost.options.base import Section
from llmhost.options.kind import ADDRESS
from llmhost.options.types import (
    IndexUrl,
    InterfaceName,
    InventoryHost,
    SecretReference,
    Table,
    parsed,
    whole,
)

Ipv4 = Annotated[
    IPv4Address, parsed(IPv4Address, IPv4Address, "an IPv4 address", "10.9.0.1", ADDRESS)
]


class EngineGroup(Section):
    """Hosts whose GPUs run one vLLM together. Declare the same in each member, best in a group of
    the inventory; only `interface` may differ."""

    members: Table[InventoryHost, Ipv4] = Field(default_factory=dict)
    """The hosts, by their names in the inventory, each with its address on the interface that they
    share, such as `{'llm-a': '10.9.0.1', 'llm-b': '10.9.0.2'}`. Empty: no group."""

    head: InventoryHost | None = None
    """The member that answers requests; the others only compute."""

    interface: InterfaceName | None = None
    """Network interface with the member's address. On it, the firewall admits the other members to
    all TCP ports from 1024; nobody else reaches the engine's ports."""

    token: SecretReference | None = None
    """Secret of the group, which Ray requires from everyone who connects: 32 characters or more."""

    port: Annotated[int, whole(1024, 65535, "", 6379, "a port number")] = 6379
    """Port of Ray on the head."""

    package_index: IndexUrl | None = None
    """Package index from which the image build gets Ray, as pip's `index-url`; none: PyPI. pip
    installs only files with the locked hashes."""

    tensor_parallel: Annotated[int, whole(1, 1024, "GPUs", 2)] | None = None
    """GPUs that compute each layer together; none: those of one host."""

    pipeline_parallel: Annotated[int, whole(1, 1024, "stages", 2)] | None = None
    """Parts of the model, one after the other, into which its layers are divided; none: as many as
    use all GPUs, which is the number of hosts."""

    @property
    def names(self) -> tuple[str, ...]:
        """The members, the head first."""
        return tuple(sorted(self.members, key=lambda name: (name != self.head, name)))
