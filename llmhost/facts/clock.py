"""Time zone and time synchronization."""

from pyinfra.api import FactBase

from llmhost.system.clock import DAEMONS, ClockState, parse_clock


class Clock(FactBase[ClockState]):
    """The host's time zone, and the installed daemons that can synchronize its clock."""

    @staticmethod
    def default() -> ClockState:
        return ClockState()

    def command(self) -> str:
        return (
            'echo "link $(readlink /etc/localtime)";'
            " [ -e /etc/timezone ] && sed '1s/^/zone /;q' /etc/timezone;"
            ' echo "container $(systemd-detect-virt --container)";'
            f" systemctl list-unit-files --no-legend --no-pager {' '.join(DAEMONS)} 2>/dev/null"
            " | sed 's/^/unit /'; true"
        )

    def process(self, output: list[str]) -> ClockState:
        return parse_clock(output)
