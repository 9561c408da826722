"""placeholder"""

from __future__ import annotations

from tests.machines.machine import Machine


class VirtualMachine(Machine):
    kernel = True

    def _furnish(self) -> None:
        raise NotImplementedError

    def _power_on(self) -> None: ...
    def _request_shutdown(self) -> None: ...
    def _power_off(self) -> None: ...
    def _clear(self) -> None: ...
