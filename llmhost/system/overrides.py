"""Files that override the packaged configuration of systemd units.

Pure: the state comes from facts/systemd.py, the commands are run by operations/systemd.py.
"""

import base64
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

KEPT = "/var/lib/llmhost/overrides"
"""Directory that keeps a copy of every file that is removed or changed, by its path."""

OWN = frozenset(
    {
        "/etc/systemd/system/docker.service.d/50-llmhost-egress.conf",
        "/etc/systemd/system/docker.service.d/50-llmhost-firewall.conf",
        "/etc/systemd/system/docker.service.d/50-llmhost-gpu.conf",
        "/etc/systemd/system/nvidia-cdi-refresh.service.d/50-llmhost.conf",
        "/etc/systemd/system/nvidia-cdi-refresh.service.d/60-llmhost-condition.conf",
    }
)
"""Drop-ins of llmhost itself; other operations compare their content."""

# LXC's generator writes it at each boot: without it, services do not start in a container.
_OF_LXC = re.compile(r"/run/systemd/system/[^/]+\.d/zzz-lxc-service\.conf")
_OF_DOCKER = ("docker.service", "docker.socket")
_PROXIES = frozenset(
    {"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy", "socks_proxy"}
)
_PROXY_LINE = r"[[:space:]]*(export[[:space:]]+)?(https?|ftp|all|no|socks)_proxy="


@dataclass(frozen=True)
class Override:
    """A file that changes what a unit runs.

    `kind` is `unit-file` (it hides the packaged unit file), `edited` (the unit file that `package`,
    `name=version`, installed has other content), `drop-in`, `shared` (a drop-in for all units of a
    type, or whose names begin alike), or `environment` (an environment file that differs from the
    packaged one).
    """

    unit: str
    kind: str
    path: str
    packaged: bool
    content: str
    package: str = ""

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of what it sets, without proxies and empty values."""
        found = []
        for name, value in _assignments(self.content):
            if self.kind == "environment":
                wanted = bool(value) and not _is_proxy(name)
            else:
                wanted = not (name == "Environment" and _only_proxies(value))
            if wanted and name not in found:
                found.append(name)
        return tuple(found)

    @property
    def sentence(self) -> str:
        """What it does; continues with what happens to it."""
        if self.kind == "unit-file":
            return f"{self.path} hides the packaged {self.unit}"
        if self.kind == "edited":
            return f"{self.path} is not as the package {self.package.partition('=')[0]} has it"
        if self.kind == "environment":
            return f"{self.path} sets {', '.join(self.settings)} for {self.unit}"
        return f"{self.path} changes {self.unit}: it sets {', '.join(self.settings)}"

    @property
    def opens_docker(self) -> bool:
        """Whether it may offer Docker's API on the network."""
        return (
            self.unit in _OF_DOCKER
            and re.search(r"tcp:|^ListenStream=\s*[^/%\s]", self.content, re.M) is not None
        )

    @property
    def way_out(self) -> str:
        """What an operator does with one that llmhost leaves alone."""
        if self.kind == "edited":
            return f"restore it with: apt-get install --reinstall {self.package}"
        return "remove it if it is a mistake"

    @property
    def correction(self) -> str:
        """Shell commands that keep a copy and end the override."""
        path = shlex.quote(self.path)
        keep = f"cp -p --parents {path} {KEPT}"
        if self.kind != "environment":
            return f"{keep}; rm -f {path}"
        unset = f"/^[[:space:]]*([#;]|$)/b; /^{_PROXY_LINE}/Ib; s/^/# /"
        return f"{keep}; sed -i -E {shlex.quote(unset)} {path}"


@dataclass(frozen=True)
class Overrides:
    """The overrides of some units. `outdated` are the units whose files changed since systemd
    loaded them, `unknown` says by unit why they could not be read."""

    files: tuple[Override, ...] = ()
    outdated: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)

    def of(self, units: Collection[str]) -> "Overrides":
        """Those of some of the units."""
        return Overrides(
            tuple(each for each in self.files if each.unit in units),
            tuple(unit for unit in self.outdated if unit in units),
            {unit: why for unit, why in self.unknown.items() if unit in units},
        )

    def foreign(self, known: Iterable[str]) -> tuple[Override, ...]:
        """Overrides that neither a package nor llmhost or the inventory (`known` paths) provides.

        Proxies are left alone: a drop-in is Docker's documented way to declare them.
        """
        paths = OWN.union(known)
        return tuple(
            each
            for each in self.files
            if not (each.packaged or each.path in paths or _OF_LXC.fullmatch(each.path))
            and (each.kind in ("unit-file", "edited") or each.settings)
        )


def parse_overrides(lines: Sequence[str]) -> Overrides:
    """Output of files/system/overrides.sh."""
    files, outdated, unknown, unit = [], [], {}, ""
    remaining = iter(lines)
    for line in remaining:
        first, second, third = line.split(" ", 2)
        if first == "unit":
            unit = second
            outdated += [unit] if third == "yes" else []
        elif first == "failed":
            unknown[second] = f"the overrides of {second} could not be read: {third}"
        else:
            content = base64.b64decode(next(remaining)).decode(errors="replace")
            package = second if first == "edited" else ""
            files.append(Override(unit, first, third, second == "yes", content, package))
    return Overrides(tuple(files), tuple(outdated), unknown)


def _assignments(text: str) -> list[tuple[str, str]]:
    """`NAME=VALUE` lines of a unit file or an environment file, in order."""
    joined = re.sub(r"\\\n", " ", text)
    lines = (line.strip() for line in joined.splitlines())
    pairs = (line.partition("=") for line in lines if not line.startswith(("#", ";", "[")))
    return [
        (name.strip().removeprefix("export "), value.strip("\"' "))
        for name, equals, value in pairs
        if equals
    ]


def _is_proxy(name: str) -> bool:
    return name.lower() in _PROXIES


def _only_proxies(value: str) -> bool:
    """Whether a value of `Environment=` has proxies only; it is text in systemd's quoting."""
    try:
        words = shlex.split(value)
    except ValueError:
        words = value.replace('"', "").split()
    return all(_is_proxy(word.partition("=")[0]) for word in words)
