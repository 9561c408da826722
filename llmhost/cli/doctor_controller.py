"""What the controller lacks. Imports nothing that is slow to start."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal

from llmhost.resources import REQUIREMENTS
from llmhost.status.findings import Finding

_PACKAGES = {"ssh": "openssh-client", "ssh-keygen": "openssh-client", "git": "git"}
_NEEDED_BY = {
    "ssh": "llmhost ssh, exec, bundle and verify need it",
    "ssh-keygen": "a key for SSH is created with it",
    "git": "without it, receipts do not name llmhost's revision",
}


def controller_findings() -> list[Finding]:
    """All findings about this machine."""
    return [*_python(), *_programs(), *_ssh_key(Path.home(), os.environ), *_dependencies()]


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("controller.python", "ok", f"Python {version} in {sys.prefix}")


def _programs() -> Iterator[Finding]:
    for program, package in _PACKAGES.items():
        name = f"controller.{program}"
        if path := shutil.which(program):
            yield Finding(name, "ok", path)
        else:
            state: Literal["advice", "missing"] = "missing" if program == "ssh" else "advice"
            fix = f"sudo apt-get install {package}"
            yield Finding(name, state, f"no {program}; {_NEEDED_BY[program]}", fix)


def _ssh_key(home: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    keys = sorted(path.with_suffix("") for path in (home / ".ssh").glob("id_*.pub"))
    if keys:
        yield Finding("controller.ssh-key", "ok", f"SSH key {keys[0]}")
    elif _agent_keys(environment):
        yield Finding("controller.ssh-key", "ok", "SSH keys in the agent")
    else:
        fix = "ssh-keygen -t ed25519"
        what = "no SSH key in ~/.ssh; create one, or name another with ssh_key in the inventory"
        yield Finding("controller.ssh-key", "advice", what, fix)


def _agent_keys(environment: Mapping[str, str]) -> bool:
    if not environment.get("SSH_AUTH_SOCK") or not shutil.which("ssh-add"):
        return False
    return (
        subprocess.run(["ssh-add", "-l"], capture_output=True, env={**environment}).returncode == 0
    )


def _dependencies() -> Iterator[Finding]:
    """Installed versions compared with the locked ones."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    # Those with a marker are for other Python versions.
    pins = dict(
        line.split(" ")[0].split("==") for line in lines if "==" in line and ";" not in line
    )
    other = [f"{name} {found}" for name, pin in pins.items() if (found := _version(name)) != pin]
    if not other:
        yield Finding("controller.dependencies", "ok", f"{len(pins)} locked dependencies")
        return
    what = f"{len(other)} dependencies differ from the tested versions ({', '.join(other[:3])})"
    fix = f"{sys.executable} -m pip install --require-hashes -r {REQUIREMENTS}"
    yield Finding("controller.dependencies", "advice", what, fix)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "is not installed"
