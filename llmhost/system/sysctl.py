"""Kernel parameters as declared, compared with the running kernel.

Pure: the state comes from facts/sysctl.py, the commands are run by operations/sysctl.py.
"""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llmhost.system.virtualization import has_own_kernel

# Parameters of a network or IPC namespace; all others belong to the whole kernel, so a container
# that can write them sets them for its host and all its neighbors (namespaces(7)).
_OF_A_CONTAINER = ("net.", "kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")


@dataclass(frozen=True)
class KernelState:
    """Running values by parameter name, with single blanks; parameters that the kernel does not
    have are left out, `read_only` ones cannot be set. `container` is the container's name in
    systemd-detect-virt, empty on a machine with its own kernel."""

    values: Mapping[str, str] = field(default_factory=dict)
    read_only: frozenset[str] = frozenset()
    container: str = ""


def proc_path(name: str) -> str:
    """The file of a parameter. As in sysctl.d(5): if a slash comes first, slashes separate, and
    dots belong to names."""
    separators = [character for character in name if character in "./"]
    if separators and separators[0] == "/":
        return f"/proc/sys/{name}"
    return "/proc/sys/" + name.translate(str.maketrans("./", "/."))


def settable(parameters: Mapping[str, str], state: KernelState) -> dict[str, str]:
    """The parameters that this host can set."""
    return {
        name: value
        for name, value in parameters.items()
        if name not in state.read_only
        and (not state.container or name.replace("/", ".").startswith(_OF_A_CONTAINER))
    }


def deviations(parameters: Mapping[str, str], state: KernelState) -> dict[str, str]:
    """Parameters whose running value differs, each with the reason."""
    return {
        name: f"{name} is {state.values[name]}, not {value}"
        for name, value in parameters.items()
        if name in state.values and state.values[name] != normalized(value)
    }


def unknown(parameters: Mapping[str, str], state: KernelState) -> list[str]:
    """Parameters that the running kernel does not have."""
    return [name for name in parameters if name not in state.values]


def normalized(value: str) -> str:
    """A value with single blanks: the kernel prints tabs."""
    return " ".join(value.split())


def parse_state(lines: list[str], contents: Iterable[str] = ()) -> KernelState:
    """Lines `container NAME`, and `NAME|w or r|PATH` for each parameter that exists; `contents` are
    lines `PATH:VALUE`."""
    names: dict[str, str] = {}
    read_only: set[str] = set()
    container = ""
    for line in lines:
        if line.startswith("container "):
            container = line.removeprefix("container ")
        elif line.count("|") >= 2:
            name, writable, path = line.split("|", 2)
            names[f"{path}:"] = name
            if writable == "r":
                read_only.add(name)
    values = dict.fromkeys(names.values(), "")
    for line in contents:
        if path := next(filter(line.startswith, names), ""):
            values[names[path]] = normalized(line.removeprefix(path))
    own = has_own_kernel(container)
    return KernelState(values, frozenset(read_only), "" if own else container)


def render(parameters: Mapping[str, str]) -> str:
    """Text of a file for sysctl.d(5)."""
    lines = [f"{name} = {value}\n" for name, value in parameters.items()]
    return "# Managed by llmhost: edit the inventory instead.\n" + "".join(lines)


def script(parameters: Mapping[str, str]) -> str:
    """Shell script that sets running values; it stops at the first one that the kernel refuses."""
    return " && ".join(
        f"printf '%s\\n' {shlex.quote(value)} > {shlex.quote(proc_path(name))}"
        for name, value in parameters.items()
    )
