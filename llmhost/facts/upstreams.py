"""Whether a gateway can reach the servers behind it."""

import shlex
from collections.abc import Mapping
from ipaddress import ip_address

from pyinfra.api import FactBase

SECONDS = 5
"""Timeout for a connection; all servers are tried at once."""


class SilentUpstreams(FactBase[list[str]]):
    """Names of the servers that accept no connection from the host.

    `servers` are address and port by name. A server with a file `<name>.drained` in `marks` is
    skipped. Uses bash's /dev/tcp, because a minimal host has neither curl nor nc.
    """

    @staticmethod
    def default() -> list[str]:
        return []

    def command(self, servers: Mapping[str, tuple[str, int]], marks: str) -> str:
        tries = []
        for name, (address, port) in servers.items():
            target = f"/dev/tcp/{ip_address(address)}/{port:d}"
            mark = shlex.quote(f"{marks}/{name}.drained")
            opened = f"timeout {SECONDS} bash -c {shlex.quote(f'exec 3<>{target}')} 2>/dev/null"
            tries.append(f"{{ [ -e {mark} ] || {opened} || echo {shlex.quote(name)}; }} &")
        return " ".join([*tries, "wait"])

    def process(self, output: list[str]) -> list[str]:
        return sorted(output)
