"""placeholder"""

from __future__ import annotations

from tests.machines.machine import Machine


class VirtualMachine(Machine):
    kernel = True

    def _furnish(self) -> None:
        raise NotImplementedError
