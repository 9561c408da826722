"""Hosts for tests: `Lan` creates machines with their own systemd, sshd and addresses.

with Lan.create("example") as lan:
    server = lan.machine("server")
    client = lan.client("client")
    server.ssh("uname -a")
    client.run(["curl", f"http://{server.address}/"])
"""

from testbed.client import Client
from testbed.controller import install_requirements
from testbed.lan import Lan, collect_garbage
from testbed.machine import Machine
from testbed.process import MachineError

__all__ = ["Client", "Lan", "Machine", "MachineError", "collect_garbage", "install_requirements"]
