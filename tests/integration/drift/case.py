"""What a case of drift is, and what cases of several components have in common."""

from dataclasses import dataclass

ENGINE = "llmhost-llamacpp-1"
APP = "llmhost-notes-1"
UI = "llmhost-open_webui-1"
UP = "docker compose -f /opt/llmhost/compose.yaml up -d --quiet-pull"
IMAGE = f"$(docker inspect -f '{{{{.Config.Image}}}}' {ENGINE})"
# A package of nothing: what an upgrade by hand leaves is another version.
OTHER_VERSION = (
    "mkdir -p /root/deb/DEBIAN && printf 'Package: {name}\\nVersion: 999\\nArchitecture: all\\n"
    "Maintainer: nobody\\nDescription: another version\\n' >/root/deb/DEBIAN/control"
    " && dpkg-deb -b /root/deb /root/other.deb >/dev/null && dpkg -i --force-all /root/other.deb"
)


@dataclass(frozen=True)
class Drift:
    """One way to drift.

    `by_hand` is run on the server; then `plan` names `component`, with `sign` among its reasons.
    When the next deploy has corrected it, the check `guard` (docs/troubleshooting.md) passes.
    """

    id: str
    by_hand: str
    component: str
    sign: str
    guard: str


@dataclass(frozen=True)
class Foreign:
    """Something of somebody else's, made and removed by hand: `look` prints it, before and after
    deploys the same."""

    id: str
    by_hand: str
    look: str
    undo: str


def drifts(component: str, guard: str, *cases: tuple[str, str, str]) -> tuple[Drift, ...]:
    """Cases (id, what is done by hand, sign) of one component that one check guards."""
    return tuple(Drift(id, by_hand, component, sign, guard) for id, by_hand, sign in cases)
