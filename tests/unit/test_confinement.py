"""What a container has beyond its service's file."""

from dataclasses import replace
from typing import Any

import pytest

from llmhost.docker.compose import ProjectState, plan
from llmhost.docker.confinement import Confinement, additions
from tests.unit.test_compose import CONVERGED, PROJECT, RUNNING

SERVICE = """\
services:
  engine:
    ports:
      - "127.0.0.1:8081:8080"
    dns:
      - 127.0.0.1
    extra_hosts:
      - "b=192.0.2.2"
    user: "10001:10001"
    logging:
      driver: local
      options:
        max-size: 50m
        max-file: "3"
    read_only: true
    tmpfs:
      - /tmp:mode=1777,noexec
    cap_drop:
      - ALL
    security_opt:
      - no-new-privileges:true
    deploy:
      resources:
        reservations:
          devices:
            - driver: cdi
              device_ids:
                - nvidia.com/gpu=GPU-1
    volumes:
      - type: tmpfs
        target: /data
      - type: volume
        source: engine-data
        target: /srv/data
"""

# As docker 26.1 and 28.5 inspect it; what is not compared is left out.
HOST: dict[str, Any] = {
    "Binds": None,
    "PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8081"}]},
    "CapAdd": None,
    "CapDrop": ["ALL"],
    "Dns": ["127.0.0.1"],
    "ExtraHosts": ["b:192.0.2.2"],
    "IpcMode": "private",
    "PidMode": "",
    "Privileged": False,
    "ReadonlyRootfs": True,
    "SecurityOpt": ["no-new-privileges:true"],
    "Tmpfs": {"/tmp": "mode=1777,noexec"},
    "Runtime": "runc",
    "Devices": None,
    "DeviceRequests": [{"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=GPU-1"]}],
    "MaskedPaths": ["/proc/kcore"],
    "LogConfig": {"Type": "local", "Config": {"max-file": "3", "max-size": "50m"}},
}
MOUNTS = (
    {"Type": "tmpfs", "Source": "", "Destination": "/data", "RW": True},
    {"Type": "volume", "Name": "llmhost_engine-data", "Destination": "/srv/data", "RW": True},
    {"Type": "volume", "Name": "ab" * 32, "Destination": "/declared/by/the/image", "RW": True},
)
FOUND = Confinement(HOST, MOUNTS, frozenset(["llmhost_default"]), "10001:10001")
BIND = {"Type": "bind", "Source": "/etc", "Destination": "/host", "RW": False}
OTHER_DATA = {"Type": "volume", "Name": "mine", "Destination": "/srv/data", "RW": True}
ALL_GPUS = {"Driver": "", "Count": -1, "DeviceIDs": None}
MORE_GPUS = {"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=GPU-2"]}
DEVICE = {"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}
OPEN_PORT = {"9/tcp": [{"HostIp": "0.0.0.0", "HostPort": "9000"}]}


def _host(**changes: Any) -> Confinement:
    return replace(FOUND, host={**HOST, **changes})


CASES = {
    "networks (mine, other)": replace(
        FOUND, networks=frozenset(["llmhost_default", "other", "mine"])
    ),
    "mounts (/host)": replace(FOUND, mounts=(*MOUNTS, BIND)),
    "mounts (/srv/data)": replace(FOUND, mounts=(MOUNTS[0], OTHER_DATA)),
    "mounts (/models)": _host(Tmpfs={"/tmp": "", "/models": ""}),
    "mounts (a)": _host(VolumesFrom=["a"]),
    "devices (all)": _host(DeviceRequests=[ALL_GPUS]),
    "devices (nvidia.com/gpu=GPU-2)": _host(DeviceRequests=[*HOST["DeviceRequests"], MORE_GPUS]),
    "devices (/dev/kmsg)": _host(Devices=[DEVICE]),
    "devices (c 1:3 rwm)": _host(DeviceCgroupRules=["c 1:3 rwm"]),
    "devices (runtime nvidia)": _host(Runtime="nvidia"),
    "capabilities (NET_ADMIN)": _host(CapAdd=["NET_ADMIN"]),
    "privileges (Privileged True)": _host(Privileged=True),
    "privileges (all of /proc)": _host(MaskedPaths=[]),
    "namespaces (PidMode host)": _host(PidMode="host"),
    "namespaces (IpcMode host)": _host(IpcMode="host"),
    "ports (0.0.0.0:9000:9)": _host(PortBindings={**HOST["PortBindings"], **OPEN_PORT}),
    "ports (PublishAllPorts True)": _host(PublishAllPorts=True),
    "kernel parameters (net.ipv4.ip_forward)": _host(Sysctls={"net.ipv4.ip_forward": "1"}),
    "names of hosts (a:192.0.2.1)": _host(ExtraHosts=["b:192.0.2.2", "a:192.0.2.1"]),
    "name servers (192.0.2.53)": _host(Dns=["127.0.0.1", "192.0.2.53"]),
}
LACKING = {
    "capabilities are not dropped (ALL)": _host(CapDrop=None),
    "its root file system is writable": _host(ReadonlyRootfs=False),
    "its security options are seccomp=unconfined": _host(SecurityOpt=["seccomp=unconfined"]),
    "it looks up names outside the stack": _host(Dns=None),
    "its security options are none": _host(SecurityOpt=None),
    "the size of its log is not limited as declared": _host(
        LogConfig={"Type": "json-file", "Config": {}}
    ),
    "its user is root": replace(FOUND, user=""),
}


@pytest.mark.parametrize("addition", CASES)
def test_addition_is_named(addition: str) -> None:
    found = additions("llmhost", "engine", SERVICE, CASES[addition])
    assert found == [f"has undeclared {addition}"]


@pytest.mark.parametrize("lack", LACKING)
def test_lack_is_named(lack: str) -> None:
    found = additions("llmhost", "engine", SERVICE, LACKING[lack])
    assert found == [f"lacks part of its confinement: {lack}"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SERVICE, FOUND),
        (SERVICE, Confinement()),
        ("services: {}\n", _host(Privileged=True)),
    ],
)
def test_container_as_declared_has_no_additions(text: str, found: Confinement) -> None:
    assert additions("llmhost", "engine", text, found) == []


def _plan(found: Confinement) -> tuple[tuple[str, ...], tuple[str, ...]]:
    project = replace(PROJECT, services={"engine": SERVICE})
    state: ProjectState = replace(
        CONVERGED,
        containers=(replace(RUNNING, confinement=found),),
        paths={
            **CONVERGED.paths,
            f"{PROJECT.directory}/services/engine.yaml": replace(
                CONVERGED.paths[f"{PROJECT.directory}/services/engine.yaml"],
                sha256=project.files[1].sha256,
            ),
        },
    )
    todo = plan(project, state)
    return todo.reasons, todo.remake


def test_container_with_additions_is_recreated() -> None:
    assert _plan(FOUND) == ((), ())
    assert _plan(_host(CapAdd=["NET_ADMIN"])) == (
        ("service engine has undeclared capabilities (NET_ADMIN)",),
        ("engine",),
    )
