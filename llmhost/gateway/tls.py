"""TLS in nginx's configuration: the certificate, its names, and the refusal of other names.

Names and certificate can depend on the host's state.
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
"""Certificate and key in one file, so that an interrupted run cannot separate them."""

_SERVED = re.compile(r"[a-z0-9.:-]+")


@dataclass(frozen=True)
class Tls:
    """TLS of the gateway. `listen` is `address:port` in nginx's notation, `names` are the declared
    ones, `inner` those that services of the host use; the certificate comes from `authority`, a
    directory on the controller, or without it from the declared files."""

    listen: tuple[str, ...]
    names: tuple[str, ...] = ()
    authority: Path | None = None
    days: int = 730
    renew_days: int = 90
    inner: tuple[str, ...] = ()


def served_names(tls: Tls, host: str, state: NginxState) -> tuple[str, ...]:
    """Declared names; without them the host's name in the inventory, and its own name and
    addresses."""
    names = tls.names or (host, *state.names)
    found = {name.lower() for name in (*names, *tls.inner)}
    return tuple(sorted(filter(can_be_served, found)))


def can_be_served(name: str) -> bool:
    """Whether certificates can have this name; those of hosts in an inventory may contain `_`."""
    return bool(_SERVED.fullmatch(name.lower()))


def name_files(tree: Tree, tls: Tls, names: Iterable[str], version: str) -> tuple[File, ...]:
    """Files with the served names, and the refusal of all others."""
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
    """The tree with the host's certificate, or with a new one and its reason."""
    path, now = f"{tree.directory}/{CERTIFICATE}", datetime.now().astimezone()
    found = state.paths.get(path)
    if found is None or not state.certificate:
        reason = "there is no certificate yet"
    elif (found.kind, found.owner, found.mode) != ("file", "root", "0600"):
        reason = "users other than root could have read the certificate's key"
    else:
        reason = why_renew(state.certificate, authority.certificate, names, now, tls.renew_days)
    if found and not reason:
        return replace(tree, kept={**tree.kept, path: found}), ""
    fresh = File(path, authority.issue(names, now, tls.days), mode="0600")
    return replace(tree, files=(*tree.files, fresh)), reason
