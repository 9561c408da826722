"""Index of Python packages for machines: as configured for pip on the controller."""

from __future__ import annotations

import ast
import sys

from testbed.process import run

_NETWORK = ("index-url", "extra-index-url", "proxy", "trusted-host", "timeout", "default-timeout")
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def configuration() -> str:
    """A pip.conf with the controller's indexes and proxies, without paths on its disk.

    A certificate bundle is replaced by the machine's, which has the controller's local authorities.
    """
    listed = run([sys.executable, "-m", "pip", "config", "list"]).stdout.splitlines()
    pairs = (line.split("=", 1) for line in listed if "=" in line)
    options = {key.rpartition(".")[2]: str(ast.literal_eval(value)) for key, value in pairs}
    lines = ["[global]", *([f"cert = {_BUNDLE}"] if "cert" in options else [])]
    for key in _NETWORK:
        remote = [each for each in options.get(key, "").split() if not each.startswith("file:")]
        lines += [f"{key} = {' '.join(remote)}"] if remote else []
    return "\n".join(lines) + "\n"
