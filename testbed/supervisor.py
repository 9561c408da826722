"""Keeps one machine running: the power supply and the reset button of a test machine.

Run it as a separate program, by path: ``python3 supervisor.py SPEC``. SPEC is a JSON file with

* ``before``: commands to run ahead of every boot. One that starts with ``-`` may fail.
* ``argv``: the machine itself.
* ``again``: the exit status that means "the machine asked for a reboot".

systemd-nspawn --keep-unit leaves with status 133 when its system reboots and expects its service
manager to start it again (``RestartForceExitStatus=133`` in systemd-nspawn@.service). Doing that
here lets anything reboot a machine, as on real hardware; and because the network namespace is
recreated each time, firewall rules that are not persistent are lost, as on real hardware.

It imports nothing of this package, because it must keep running when the working tree changes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def main(spec_file: Path) -> int:
    while True:
        spec = json.loads(spec_file.read_text())
        for command in spec["before"]:
            may_fail = command[0] == "-"
            done = subprocess.run(command[1:] if may_fail else command, capture_output=may_fail)
            if done.returncode and not may_fail:
                print(f"supervisor: {command} ended with {done.returncode}", flush=True)
                return done.returncode
        status = subprocess.run(spec["argv"]).returncode
        print(f"supervisor: the machine ended with {status}", flush=True)
        if status != spec["again"]:
            return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
