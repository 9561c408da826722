"""What the gateway's TLS adds to nginx's configuration: certificate, names, and no for other names.

Names and certificate may depend on the host, so this part is made when the host's state is known.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from llmhost.gateway.nginx import NginxState, Tree
from llmhost.gateway.x509 import Authority, why_renew
from llmhost.system.files import File
from llmhost.template import render

CERTIFICATE = "tls.pem"
"""Certificate and key in one file, so that no killed run leaves one without the other."""

_SERVED = re.compile(r"[a-z0-9.:-]+")


@dataclass(frozen=True)
class Tls:
    """How the gateway is called. `listen` is `address:port` as nginx writes them, `names` are the
    declared ones; with `authority`, a directory on the controller, the certificate comes from
    there, and without it is among the declared files."""

    listen: tuple[str, ...]
    names: tuple[str, ...] = ()
    authority: Path | None = None
    days: int = 730
    renew_days: int = 90


def served_names(tls: Tls, host: str, state: NginxState) -> tuple[str, ...]:
    """Declared names; without them the host's name in the inventory and what it calls itself."""
    names = tls.names or (host, *state.names)
    return tuple(sorted({name.lower() for name in names if _SERVED.fullmatch(name.lower())}))


def name_files(tree: Tree, tls: Tls, names: Iterable[str], version: str) -> tuple[File, ...]:
    """Which names are served, and the refusal of all others."""
    listed = [f"[{name}]" if ":" in name else name for name in names]
    # ssl_reject_handshake came with nginx 1.19.4; Ubuntu 22.04 has 1.18.
    rejects = not version or tuple(map(int, version.split(".")[:3])) >= (1, 19, 4)
    values = {"names": listed, "listen": tls.listen, "rejects": rejects}
    return tuple(
        File(f"{tree.directory}/{name}", render(f"gateway/{name}.j2", **values))
        for name in ("names.conf", "other-names.conf")
    )


def certified(
    tree: Tree, tls: Tls, names: tuple[str, ...], state: NginxState, authority: Authority
) -> tuple[Tree, str]:
    """The tree with the host's certificate, or with a new one and the reason for it."""
    path, now = f"{tree.directory}/{CERTIFICATE}", datetime.now().astimezone()
    found = state.paths.get(path)
    if found is None or not state.certificate:
        reason = "there is no certificate yet"
    elif (found.kind, found.owner, found.mode) != ("file", "root", "0600"):
        reason = "others than root could have read the certificate's key"
    else:
        reason = why_renew(state.certificate, authority.certificate, names, now, tls.renew_days)
    if found and not reason:
        return replace(tree, kept={**tree.kept, path: found}), ""
    fresh = File(path, authority.issue(names, now, tls.days), mode="0600")
    return replace(tree, files=(*tree.files, fresh)), reason
