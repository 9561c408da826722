"""Debian packages as declared, compared with dpkg's database.

Pure: the state comes from facts/apt.py, the commands are run by operations/apt.py.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmhost.resources import script_text


@dataclass(frozen=True)
class AptPackage:
    """One package in dpkg's database. `status` is dpkg's: `installed`, `half-configured`, …"""

    version: str
    status: str
    held: bool = False

    @property
    def present(self) -> bool:
        return self.status not in {"not-installed", "config-files"}


@dataclass(frozen=True)
class PackageDatabase:
    """dpkg's database: the requested `packages` by name; `unfinished` are packages that an
    interrupted run left between states; `journal` is set if dpkg itself was killed."""

    packages: Mapping[str, AptPackage]
    unfinished: tuple[str, ...] = ()
    journal: bool = False


@dataclass(frozen=True)
class AptPlan:
    """What apt must do. `install` has names, or name=version; `unhold` comes first and `hold` last,
    because apt refuses to change held packages."""

    install: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    unhold: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    repair: bool = False
    reasons: tuple[str, ...] = ()


def plan(
    wanted: Sequence[str],
    versions: Mapping[str, str],
    absent: Sequence[str],
    hold: bool | None,
    found: PackageDatabase,
) -> AptPlan:
    """Compare; `hold=None` does not change holds. No reasons: nothing to do."""
    lacking = {name: _lacking(found.packages.get(name), versions.get(name)) for name in wanted}
    installs = [name for name in wanted if lacking[name]]
    removals = [name for name in absent if _present(found, name)]
    held = {name for name, package in found.packages.items() if package.held}
    to_hold = [name for name in wanted if hold and name not in held]
    to_unhold = [name for name in wanted if hold is False and name in held]
    hold_again = [name for name in installs if hold is not False and name in held]
    touched = [name for name in (*installs, *removals, *to_unhold) if name in held]
    reasons = [
        *(f"{name} {lacking[name]}" for name in installs),
        *(f"{name} must not be installed" for name in removals),
        *(f"{name} is not held" for name in to_hold),
        *(f"{name} is held, though no version is pinned" for name in to_unhold),
        *(["dpkg was interrupted"] if found.journal else []),
    ]
    return AptPlan(
        install=tuple(_spec(name, versions) for name in installs),
        remove=tuple(removals),
        unhold=tuple(dict.fromkeys(touched)),
        hold=(*to_hold, *hold_again),
        repair=bool(reasons and (found.journal or found.unfinished)),
        reasons=tuple(reasons),
    )


def _lacking(package: AptPackage | None, version: str | None) -> str:
    if package is None or not package.present:
        return "is not installed"
    if package.status != "installed":
        return f"is {package.status}"
    if version and package.version != version:
        return f"is {package.version}, not {version}"
    return ""


def _present(found: PackageDatabase, name: str) -> bool:
    return name in found.packages and found.packages[name].present


def _spec(name: str, versions: Mapping[str, str]) -> str:
    return f"{name}={versions[name]}" if name in versions else name


def script(todo: AptPlan, keep_stopped: Sequence[str] = (), *, lacking: bool = False) -> str:
    """POSIX shell script that executes a plan; if it fails, it prints the reason in one sentence.

    Packages must not start the units in `keep_stopped`. `lacking`: the plan installs only what is
    missing, so that it is done once that is there, even if apt fails at other packages.
    """
    parts = [script_text("apt/functions.sh")]
    parts += ["lacking=yes"] if lacking else []
    parts += ["finish_interrupted"] if todo.repair else []
    parts += [_mark("unhold", todo.unhold)] if todo.unhold else []
    if todo.install or todo.remove or todo.repair:
        parts += [_keep_stopped(keep_stopped)] if keep_stopped else []
        parts += [_transaction(todo)]
    parts += [_mark("hold", todo.hold)] if todo.hold else []
    return "\n".join(parts)


def _transaction(todo: AptPlan) -> str:
    """One transaction, so that a replacement (docker.io by docker-ce) is never incomplete."""
    options = ["--allow-downgrades"] if any("=" in spec for spec in todo.install) else []
    options += ["--fix-broken"] if todo.repair else []
    specs = [*todo.install, *(f"{name}-" for name in todo.remove)]
    removable = shlex.quote(" ".join(todo.remove))
    return f"removable={removable}\ntransact {shlex.join([*options, *specs])}"


def _mark(state: str, names: Sequence[str]) -> str:
    return f"wait_for_lock; apt-mark {state} {shlex.join(names)} || exit 1"


def _keep_stopped(units: Sequence[str]) -> str:
    """A runtime mask, which deb-systemd-invoke(1) respects and a reboot removes."""
    listed = shlex.join(units)
    return (
        f"systemctl --quiet mask --runtime {listed} || exit 1\n"
        f"trap 'systemctl --quiet unmask --runtime {listed}' EXIT"
    )
