"""Write the metrics of this server that no exporter has, for the node exporter.

Run by llmhost-metrics.service as root; needs Python 3.10 or newer, and probe.py and gpus.py beside
it. The argument is a file with a JSON object: see `main`. A part that cannot be read does not end
it: then its metrics are missing.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import probe

GPU_SECONDS = 30
NVIDIA, DISPLAY = "0x10de", "0x03"
LOG_SECONDS = 30
XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)")
CURSOR = "-- cursor: "


def lines(asked, errors):
    """All metrics, in the text format of Prometheus."""
    if asked["certificate"]:
        yield from certificate(asked["certificate"])
    if asked["project"]:
        yield from services(asked)
    if asked["backup"]:
        yield from backup(asked["backup"], asked["backup_late_seconds"])
    yield from family("llmhost_reboot_required", "Whether an update waits for a reboot")
    yield f"llmhost_reboot_required {int(probe.exists('/run/reboot-required'))}"
    if asked["pynvml"]:
        yield from gpus(asked["pynvml"])
        yield from errors.lines()


def family(name, text, kind="gauge"):
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def certificate(path):
    end = probe.certificate(path)
    if end is not None:
        name = "llmhost_certificate_expires_seconds"
        yield from family(name, "When the gateway's certificate expires, since 1970")
        yield f"{name} {end}"


def services(asked):
    """A service that is missing, or whose state Docker does not give, is not healthy."""
    found, _ = probe.containers(asked["project"])
    states = {each["service"]: each for each in found or ()}
    stopped = probe.stopped(asked["stopped"])
    name = "llmhost_service_healthy"
    yield from family(name, "Whether the service runs and passes its health check")
    for service in asked["services"]:
        state = states.get(service, {})
        well = state.get("state") == "running" and state["health"] in ("healthy", "")
        yield f'{name}{{service="{service}"}} {int(well)}'
    name = "llmhost_service_stopped"
    yield from family(name, "Whether an operator stopped the service on purpose")
    for service in asked["services"]:
        yield f'{name}{{service="{service}"}} {int(service in stopped)}'
    name = "llmhost_service_restarts_total"
    yield from family(name, "Restarts by Docker since the container was created", "counter")
    for service in asked["services"]:
        if service in states:
            yield f'{name}{{service="{service}"}} {states[service]["restarts"]}'


def backup(record, late):
    """0 before the first one."""
    made = probe.parsed(probe.text(record)) or {}
    name = "llmhost_backup_last_success_seconds"
    yield from family(name, "When the last successful backup ended, since 1970; 0: never")
    yield f"{name} {made.get('time', 0)}"
    name = "llmhost_backup_late_seconds"
    yield from family(name, "Age from which the last backup is late")
    yield f"{name} {late}"


def gpus(pynvml):
    """The GPUs on the bus, and what NVML knows of them. In a process of its own: a loaded library
    would not fit the driver after its update."""
    devices = [each for each in Path("/sys/bus/pci/devices").glob("*") if is_gpu(each)]
    wsl = probe.exists("/usr/lib/wsl/lib/libnvidia-ml.so.1")
    if not devices and not wsl:
        return
    name = "llmhost_gpu_devices"
    yield from family(name, "NVIDIA GPUs on the PCI bus")
    yield f"{name} {len(devices)}"
    script = str(Path(__file__).with_name("gpus.py"))
    try:
        ran = subprocess.run(
            [sys.executable, "-I", script, pynvml],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GPU_SECONDS,
        )
        said = ran.stdout if ran.returncode == 0 else ""
    except subprocess.TimeoutExpired:
        said = ""
    yield from said.splitlines() or [*family("llmhost_gpus", ""), "llmhost_gpus 0"]


class GpuErrors:
    """Errors that the driver has written to the kernel's log since the host started."""

    def __init__(self):
        self.cursor, self.counts = "", {}

    def lines(self):
        self.read()
        name = "llmhost_gpu_xid_total"
        yield from family(name, "Errors of a GPU since the host started, by Xid", "counter")
        for (address, number), count in sorted(self.counts.items()):
            yield f'{name}{{pci="{address}",xid="{number}"}} {count}'

    def read(self):
        """Count what is new. An unreadable log has no errors; `--dmesg` begins with the boot."""
        after = [f"--after-cursor={self.cursor}"] if self.cursor else []
        command = ["journalctl", "--dmesg", "--quiet", "--output=cat", "--show-cursor", *after]
        try:
            ran = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LOG_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired):
            return
        for line in ran.stdout.splitlines():
            if line.startswith(CURSOR):
                self.cursor = line.removeprefix(CURSOR)
            elif found := XID.search(line):
                self.counts[found.groups()] = self.counts.get(found.groups(), 0) + 1


def is_gpu(device):
    """Its class is VGA or 3D controller."""
    return probe.text(device / "vendor") == NVIDIA and probe.text(device / "class").startswith(
        DISPLAY
    )


def write(path, text):
    """In one step: the node exporter must not read half a file."""
    new = Path(path + ".new")
    new.write_text(text)
    new.chmod(0o644)
    new.replace(path)


def main(asked):
    """`asked` has the `file` to write and the `seconds` between two readings, the project's name,
    its services and files of llmhost; an empty string means that the host has no such thing.
    `pynvml` is the directory of NVIDIA's Python bindings, empty if no service uses a GPU."""
    errors = GpuErrors()
    while True:
        begun = time.monotonic()
        write(asked["file"], "\n".join(lines(asked, errors)) + "\n")
        if not asked["seconds"]:
            return
        time.sleep(max(1, asked["seconds"] - (time.monotonic() - begun)))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
