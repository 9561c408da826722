"""nginx's configuration as declared, compared with the files on the host and in the running nginx.

The configuration contains its own digest, which the running nginx serves on a loopback port. So a
reload that failed silently, or a wrong clock, cannot hide that nginx runs another configuration.

Pure: the state comes from facts/nginx.py, the commands are run by operations/nginx.py.
"""

import base64
import hashlib
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from llmhost.gateway.x509 import belongs_to
from llmhost.system.files import (
    UNPACK,
    Absent,
    Directory,
    Entry,
    File,
    PathState,
    archive,
    differences,
)
from llmhost.template import render

ERROR_LOG = "/var/log/nginx/error.log"
ACCESS_LOG = "/var/log/nginx/gateway.json"

CANDIDATE = ".llmhost-new"
"""Directory next to nginx.conf for a new configuration during its test."""


@dataclass(frozen=True)
class NginxState:
    """`loaded` is the digest that the running nginx serves, empty without an answer. `version` is
    empty before nginx is installed. `certificate` is the installed one, as PEM, empty if there is
    none or it does not match its key; `names` are the host's own name and addresses."""

    paths: Mapping[str, PathState] = field(default_factory=dict)
    active: bool = False
    enablement: str = ""
    loaded: str = ""
    version: str = ""
    certificate: bytes = b""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tree:
    """A configuration: `files` are nginx.conf and the files in `directory`.

    `kept` are files in it that do not change, by path; all others are removed. nginx serves its
    status on 127.0.0.1, port `status_port`.
    """

    files: tuple[File, ...]
    directory: str
    status_port: int
    kept: Mapping[str, PathState] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return str(PurePosixPath(self.directory).parent)

    @property
    def digest(self) -> str:
        """Digest of the tree, without the status file, which contains it."""
        listed = [(file.path, file.sha256) for file in self.files]
        listed += [(path, state.sha256 or "") for path, state in self.kept.items()]
        listed.sort()
        return hashlib.sha256(repr(listed).encode()).hexdigest()

    @property
    def all_files(self) -> tuple[File, ...]:
        """All files, including the status file."""
        status = render("gateway/status.conf.j2", digest=self.digest, port=self.status_port)
        return (*self.files, File(f"{self.directory}/status.conf", status))

    def wrong(self, state: NginxState) -> dict[Entry, str]:
        """Differences on disk, each with the reason."""
        files = self.all_files
        declared = {file.path for file in files} | self.kept.keys() | {self.directory}
        strays = [Absent(path) for path in state.paths if path not in declared]
        return differences([Directory(self.directory), *files, *strays], state.paths)


def install_script(tree: Tree, wrong: Iterable[Entry]) -> str:
    """Shell script that tests the new tree in a separate directory, then installs it.

    stdin is `candidate_archive`. A tree that nginx refuses changes nothing.
    """
    candidate = f"{tree.root}/{CANDIDATE}"
    quoted = shlex.quote(candidate)
    copies = [
        f"cp -p {shlex.quote(path)} {shlex.quote(_below(path, tree.root, candidate))}"
        for path in tree.kept
    ]
    moves = [
        f"mv -fT {shlex.quote(_below(file.path, tree.root, candidate))} {shlex.quote(file.path)}"
        for file in tree.all_files
    ]
    removals = [f"rm -f {shlex.quote(stray.path)}" for stray in wrong if isinstance(stray, Absent)]
    lines = [
        "set -e",
        f"trap 'rm -rf {quoted}' EXIT",
        # nginx would create it readable for everyone; logrotate keeps its mode.
        f"[ -e {ACCESS_LOG} ] || install -m 0640 -o www-data -g adm /dev/null {ACCESS_LOG}",
        f"rm -rf {quoted}",
        UNPACK,
        *copies,
        f"nginx -t -q -c {quoted}/nginx.conf",
        f"install -d -m 0755 -o root -g root {shlex.quote(tree.directory)}",
        *moves,
        *removals,
    ]
    return "\n".join(lines)


def candidate_archive(tree: Tree) -> str:
    """The tree for the stdin of `install_script`."""
    candidate = f"{tree.root}/{CANDIDATE}"
    return archive({_below(file.path, tree.root, candidate): file for file in tree.all_files})


def _below(path: str, root: str, candidate: str) -> str:
    return str(PurePosixPath(candidate) / PurePosixPath(path).relative_to(root))


def service_drift(state: NginxState, digest: str) -> list[str]:
    """Sentences about differences of the running nginx."""
    sentences = []
    if state.enablement != "enabled":
        sentences.append("nginx does not start at boot")
    if not state.active:
        sentences.append("nginx is not running")
    elif state.loaded != digest:
        sentences.append("the running configuration of nginx is not the declared one")
    return sentences


def activate_script(status_port: int, digest: str) -> str:
    """Shell script that makes nginx load the tree on disk, and waits until it has.

    `nginx -s reload` succeeds even if nginx cannot use the new configuration, for example because a
    port is in use; the reason is then in nginx's error log, and the script shows those lines.
    """
    return "\n".join(
        [
            f"seen=$(wc -c < {ERROR_LOG} 2>/dev/null || echo 0)",
            "systemctl unmask -q nginx 2>/dev/null",
            "systemctl unmask -q --runtime nginx 2>/dev/null",
            "systemctl enable -q nginx",
            "if systemctl -q is-active nginx; then systemctl reload nginx;"
            " else systemctl restart nginx; fi",
            "for _ in $(seq 50); do",
            f'    [ "$({loaded_command(status_port)})" = {digest} ] && exit 0',
            "    sleep 0.1",
            "done",
            "echo 'nginx did not load the new configuration' >&2",
            f"tail -c +$((seen + 1)) {ERROR_LOG} | grep -F '[emerg]' | tail -n 3 >&2",
            "exit 1",
        ]
    )


def loaded_command(status_port: int) -> str:
    """Shell command that prints the digest of the configuration that the running nginx has loaded.

    It uses bash's /dev/tcp, because a minimal host has neither curl nor wget.
    """
    ask = (
        f"exec 3<>/dev/tcp/127.0.0.1/{status_port} && "
        r'printf "GET /configuration HTTP/1.0\r\n\r\n" >&3 && tail -n 1 <&3'
    )
    return f"timeout 3 bash -c {shlex.quote(ask)} 2>/dev/null"


def parse_state(paths: Mapping[str, PathState], lines: Sequence[str]) -> NginxState:
    """Lines `key=value`; the certificate and the public part of its key are PEM in base64."""
    values: dict[str, str] = defaultdict(str)
    for line in lines:
        key, _, values[key] = line.partition("=")
    certificate, public_key = (base64.b64decode(values[key]) for key in ("certificate", "key"))
    return NginxState(
        paths,
        values["ActiveState"] == "active",
        values["UnitFileState"],
        values["loaded"],
        values["version"].rpartition("/")[2],
        certificate if belongs_to(certificate, public_key) else b"",
        tuple(values["names"].split()),
    )
