"""``python -m testbed list|gc``: list the LANs of this controller, remove abandoned ones."""

from __future__ import annotations

import sys

from testbed.lan import collect_garbage
from testbed.registry import locked, records


def main(arguments: list[str]) -> int:
    match arguments:
        case ["gc"]:
            for name in collect_garbage():
                print(f"removed {name}")
        case [] | ["list"]:
            with locked():
                for record in records():
                    owner = f"process {record.owner.pid}" if record.owner else "detached"
                    hosts = ", ".join(record.hosts) or "no hosts"
                    print(f"{record.name}\t{record.network.subnet}\t{owner}\t{hosts}")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
