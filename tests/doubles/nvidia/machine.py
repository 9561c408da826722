"""A machine that seems to have NVIDIA hardware: what its kernel shows is mounted at boot."""

import io
import tarfile
import tempfile
from base64 import b64encode
from pathlib import Path

from testbed import Machine
from tests.doubles.nvidia.hardware import GPU_LIST, PROFILES, WSL_KERNEL, write_pci
from tests.doubles.nvidia.packages import DEBIAN_KERNEL, KERNEL, library, smi

OS_RELEASES = {
    "ubuntu-22.04": ("ubuntu", "22.04", "jammy"),
    "ubuntu-24.04": ("ubuntu", "24.04", "noble"),
    "ubuntu-26.04": ("ubuntu", "26.04", "resolute"),
    "debian-12": ("debian", "12", "bookworm"),
    "debian-13": ("debian", "13", "trixie"),
}

_UNIT = """\
[Unit]
Description=Double of NVIDIA hardware
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/llmhost-double-hardware
[Install]
WantedBy=sysinit.target
"""

# What happens when a kernel boots: the bus shows its devices, and a module that is installed for
# this kernel is loaded.
_BOOT = r"""#!/bin/sh
double=/etc/llmhost-double
# WSL's kernel is its own, and so are these parameters: a test machine may not set its controller's.
parameters='vm/max_map_count fs/inotify/max_user_instances'
for place in /sys/bus/pci/devices /proc/sys/kernel/osrelease /proc/driver \
    $(for each in $parameters; do echo "/proc/sys/$each"; done); do
  while mountpoint -q $place; do umount $place; done
done
rm -f /dev/dxg /dev/nvidiactl /dev/nvidia-uvm
# The newest kernel boots.
newest=$(ls /boot/vmlinuz-[0-9]* | sort -V | tail -n 1)
[ -e $double/wsl ] || echo "${newest#/boot/vmlinuz-}" >$double/osrelease
mount --bind $double/pci /sys/bus/pci/devices
mount --bind $double/osrelease /proc/sys/kernel/osrelease
mkdir -p /run/llmhost-double/driver/nvidia
loaded=/run/llmhost-double/driver/nvidia/version
# A device that opens, and that no container may open unless it is given to it: autofs, or FUSE if
# the kernel has no autofs. The kernel's log would be another, and test machines may not read it.
minor=$(awk '$2 == "autofs" || $2 == "fuse" { print $1 }' /proc/misc | sort -n | tail -n 1)
if [ -e $double/wsl ]; then
  for each in $parameters; do
    own=/run/llmhost-double/sys/$each
    mkdir -p "${own%/*}"
    cat "/proc/sys/$each" >"$own"
    mount --bind "$own" "/proc/sys/$each"
  done
  /usr/lib/systemd/systemd-sysctl
  mknod -m 0666 /dev/dxg c 10 "$minor"
  [ -e $double/windows ] || exit 0
  cat $double/windows >$loaded
  mount --bind /run/llmhost-double/driver /proc/driver
  exit 0
fi
modules=/lib/modules/$(cat $double/osrelease)
for file in $(find "$modules" -name 'nvidia*.ko' 2>/dev/null); do
  [ "$(modinfo -F name "$file")" = nvidia ] && module=$file
done
[ -n "$module" ] || exit 0
version=$(modinfo -F version "$module")
open=; modinfo -F license "$module" | grep -q GPL && open='Open Kernel Module for x86_64 '
echo "NVRM version: NVIDIA UNIX ${open:-x86_64 Kernel Module }$version  Double" >$loaded
mount --bind /run/llmhost-double/driver /proc/driver
mknod -m 0666 /dev/nvidiactl c 10 "$minor"
mknod -m 0666 /dev/nvidia-uvm c 10 "$minor"
"""


WINDOWS_DRIVER = "581.15"
_WSL_LIBRARIES = "usr/lib/wsl/lib"


def furnish(
    machine: Machine, profile: str, release: str = "ubuntu-24.04", *, windows_driver: bool = True
) -> None:
    """Give a machine the hardware of a profile and the name of a release, in place of what it
    had; its module counts as loaded if one is installed. On WSL the driver is that of Windows."""
    hardware = PROFILES[profile]
    name, number, codename = OS_RELEASES[release]
    own = DEBIAN_KERNEL if name == "debian" else KERNEL
    kernel = WSL_KERNEL if hardware.wsl else own
    files: dict[str, str | bytes] = {
        "etc/os-release": (
            f'NAME="{name} (double)"\nID={name}\nVERSION_ID="{number}"\n'
            f"VERSION_CODENAME={codename}\n"
        ),
        GPU_LIST.lstrip("/"): hardware.gpu_list,
        "etc/llmhost-double/osrelease": f"{kernel}\n",
        "etc/systemd/system/llmhost-double-hardware.service": _UNIT,
        "usr/local/sbin/llmhost-double-hardware": _BOOT,
        f"boot/vmlinuz-{kernel}": "",
    }
    if hardware.wsl:
        files["etc/llmhost-double/wsl"] = ""
        if windows_driver:
            files |= _windows_driver()
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        for path, text in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(text if isinstance(text, bytes) else text.encode())
            (tree / path).chmod(0o755 if path in _PROGRAMS else 0o644)
        write_pci(tree / "etc/llmhost-double/pci", hardware)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for file in sorted(each for each in tree.rglob("*") if each.is_file()):
                archive.add(file, str(file.relative_to(tree)), filter=_owned_by_root)
    machine.ssh(
        "rm -f /etc/os-release /boot/vmlinuz-*; rm -rf /etc/llmhost-double;"
        " base64 -d | tar -xz -C / && "
        "systemctl daemon-reload && systemctl enable --quiet llmhost-double-hardware && "
        "systemctl restart llmhost-double-hardware && ldconfig",
        input=b64encode(buffer.getvalue()).decode(),
    )


_PROGRAMS = ("usr/local/sbin/llmhost-double-hardware", f"{_WSL_LIBRARIES}/nvidia-smi")


def _windows_driver() -> dict[str, str | bytes]:
    """What WSL lays over a Linux host when Windows has a driver."""
    module = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {WINDOWS_DRIVER}  Windows\n"
    return {
        "etc/llmhost-double/windows": module,
        "etc/ld.so.conf.d/ld.wsl.conf": f"/{_WSL_LIBRARIES}\n",
        f"{_WSL_LIBRARIES}/nvidia-smi": smi(WINDOWS_DRIVER),
        f"{_WSL_LIBRARIES}/libnvidia-ml.so.1": library(WINDOWS_DRIVER),
    }


def _owned_by_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info
