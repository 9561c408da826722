"""Real hosts to test on: `Lan` makes machines with their own systemd, sshd and addresses.

with Lan.create("example") as lan:
    server = lan.machine("server")
    client = lan.client("client")
    server.ssh("uname -a")
    client.run(["curl", f"http://{server.address}/"])
"""

from tests.machines.client import Client
from tests.machines.controller import install_requirements
from tests.machines.lan import Lan, collect_garbage
from tests.machines.machine import Machine
from tests.machines.process import MachineError

__all__ = ["Client", "Lan", "Machine", "MachineError", "collect_garbage", "install_requirements"]
