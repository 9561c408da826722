"""What returns a server to the pool of its gateway when its training has ended.

A unit of systemd on the gateway, from before the server is drained until it is returned: it needs
neither the controller nor a connection from the server. Pure; files/gateway/return.py runs there.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from llmhost.gateway.pool import AUTHORITY, BY_TRAINING, UPSTREAMS, mark_path
from llmhost.gateway.tree import STOPPED, UPSTREAM_KEY, NginxPaths
from llmhost.options.upstream import UpstreamServer
from llmhost.resources import FILES
from llmhost.settings import Settings
from llmhost.system.files import UNPACK, File, archive

SCRIPT = FILES / "gateway/return.py"
DIRECTORY = "/var/lib/llmhost/returning"
PREFIX = "llmhost-return-"
UNIT = """# Managed by llmhost: exists while {server} trains an adapter.
[Unit]
Description=Return {server} to the pool when its training has ended
After=network-online.target nginx.service
Wants=network-online.target

[Service]
ExecStart=/usr/bin/python3 -I {directory}/return.py {directory}
Restart=on-failure
RestartSec=10

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Returner:
    """The files of the program for one server."""

    server: str
    files: tuple[File, ...]

    @property
    def unit(self) -> str:
        return f"{PREFIX}{self.server}.service"

    @property
    def archive(self) -> str:
        """For the stdin of `start_script`."""
        return archive({file.path: file for file in self.files})

    @property
    def start_script(self) -> str:
        """Shell script for root on the gateway."""
        return "\n".join(
            [
                "set -e",
                # If it is drained already: the training has as much time as after a new drain.
                f"touch -c {shlex.quote(mark_path(NginxPaths().own, self.server))}",
                f"mkdir -p -m 0700 {shlex.quote(f'{DIRECTORY}/{self.server}')}",
                UNPACK,
                "systemctl daemon-reload",
                f"systemctl enable -q {self.unit}",
                f"systemctl restart --no-block {self.unit}",
            ]
        )


def returner(
    settings: Settings, server: UpstreamServer, services: Sequence[str], *, patience: int, lock: str
) -> Returner:
    """The program for this server of a gateway with these settings, which has stopped `services`.

    Until one of them was seen to be stopped, the training may still begin, for `patience` seconds
    after the drain. `lock` is that of deploys."""
    gateway, places = settings.gateway, NginxPaths()
    directory = f"{DIRECTORY}/{server.name}"
    question = {
        "server": server.name,
        "address": str(server.address),
        "port": server.port,
        "host": gateway.upstream_name or "llmhost",
        "tls": gateway.upstream_tls != "off",
        "paths": [f"{STOPPED}{service}" for service in services],
        "configuration": f"{places.configuration}/nginx.conf",
        "directory": places.own,
        "key": f"{places.own}/{UPSTREAM_KEY}",
        "authority": f"{places.own}/{AUTHORITY}",
        "upstreams": f"{places.own}/{UPSTREAMS}",
        "mark": mark_path(places.own, server.name),
        "mark_text": BY_TRAINING,
        "patience_seconds": patience,
        "lock": lock,
        "unit": f"{PREFIX}{server.name}.service",
    }
    unit = UNIT.format(server=server.name, directory=directory)
    files = (
        File(f"{directory}/return.py", SCRIPT.read_text(encoding="utf-8"), "0600"),
        File(f"{directory}/question.json", json.dumps(question, indent=2), "0600"),
        File(f"/etc/systemd/system/{PREFIX}{server.name}.service", unit),
    )
    return Returner(server.name, files)
