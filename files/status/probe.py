"""Print the state of an LLM server as one JSON object.

Sent to a host by `llmhost status` and run there as root by Python 3.10 or newer. The argument is a
JSON object: see `main`. What cannot be read is null; nothing here fails because a part is missing.
"""

import json
import os
import platform
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

COMMAND_SECONDS = 15
BLOCK = 1 << 20
MOST_LOG_BYTES = 64 << 20
CONTAINER = (
    '{"service":{{json (index .Config.Labels "com.docker.compose.service")}},'
    '"state":{{json .State.Status}},'
    '"health":{{if .State.Health}}{{json .State.Health.Status}}{{else}}""{{end}},'
    '"started":{{json .State.StartedAt}},"restarts":{{.RestartCount}},'
    '"exit_code":{{.State.ExitCode}},"error":{{json .State.Error}}}'
)
GPU_FIELDS = {
    "index": int,
    "name": str,
    "memory.used": float,
    "memory.total": float,
    "utilization.gpu": float,
    "temperature.gpu": float,
    "power.draw": float,
    "power.limit": float,
}


def run(*command):
    """Standard output, and the reason for a failure or an empty string."""
    try:
        ran = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_SECONDS,
        )
    except FileNotFoundError:
        return "", command[0] + " is not installed"
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} did not answer within {COMMAND_SECONDS} s"
    output, errors = (text.decode(errors="replace").strip() for text in (ran.stdout, ran.stderr))
    return output, (errors or output or command[0] + " failed") if ran.returncode else ""


def text(path):
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def exists(path):
    return Path(path).exists()


def parsed(line):
    try:
        return json.loads(line)
    except ValueError:
        return None


def disks(paths):
    """Size and free bytes of the file systems of these paths, each once."""
    found = {}
    for path in filter(exists, paths):
        size = os.statvfs(path)
        device = Path(path).stat().st_dev
        free = size.f_bavail * size.f_frsize
        found.setdefault(
            device, {"path": path, "size_bytes": size.f_blocks * size.f_frsize, "free_bytes": free}
        )
    return list(found.values())


def containers(project):
    """The project's containers; None and a reason if Docker does not answer."""
    label = "label=com.docker.compose.project=" + project
    once = "label=com.docker.compose.oneoff=False"
    names, error = run("docker", "ps", "-aq", "--filter", label, "--filter", once)
    if error:
        return None, error
    if not names:
        return [], ""
    # A container that is removed meanwhile is an error of inspect, which still prints the others.
    output, _ = run("docker", "inspect", "--format", CONTAINER, *names.split())
    return list(filter(None, map(parsed, output.splitlines()))), ""


def stopped(directory):
    """Who stopped a service on purpose, and when, by service."""
    try:
        return {mark.name: text(mark) for mark in Path(directory).iterdir()}
    except OSError:
        return {}


def gpus():
    """The GPUs by nvidia-smi; None without it or if it fails, then with the reason."""
    query = "--query-gpu=" + ",".join(GPU_FIELDS)
    output, error = run("nvidia-smi", query, "--format=csv,noheader,nounits")
    if error:
        missing = error.endswith("is not installed") and not exists("/proc/driver/nvidia")
        return None, "" if missing else error.splitlines()[0]
    rows = [line.split(", ") for line in output.splitlines()]
    return [gpu(row) for row in rows if len(row) == len(GPU_FIELDS)], ""


def gpu(row):
    """One GPU; a value that it does not report, such as `[N/A]` or `[GPU is lost]`, is null."""
    values = {}
    for (name, kind), value in zip(GPU_FIELDS.items(), row, strict=True):
        try:
            values[name] = kind(value)
        except ValueError:
            values[name] = None
    return values


def certificate(path):
    """When the certificate expires, in seconds since 1970."""
    output, error = run("openssl", "x509", "-enddate", "-noout", "-in", path)
    if error:
        return None
    end = datetime.strptime(output.partition("=")[2] + "+0000", "%b %d %H:%M:%S %Y GMT%z")
    return int(end.timestamp())


def backwards(path, most):
    """Lines of a file, last first; at most this many bytes."""
    if not exists(path):
        return
    with Path(path).open("rb") as file:
        end, rest = file.seek(0, os.SEEK_END), b""
        first = max(0, end - most)
        while end > first:
            begin = max(first, end - BLOCK)
            file.seek(begin)
            lines = (file.read(end - begin) + rest).split(b"\n")
            rest, end = lines[0], begin
            yield from reversed(lines[1:])
        if first == 0:
            yield rest


def recent(path, seconds):
    """Requests of the gateway's log that ended in the last seconds; the log may be rotated."""
    since = time.time() - seconds
    for place in (path, path + ".1"):
        for line in backwards(place, MOST_LOG_BYTES):
            request = parsed(line)
            if not isinstance(request, dict):
                continue
            if datetime.fromisoformat(request["time"]).timestamp() < since:
                return
            yield request


def requests(path, seconds):
    """Numbers of requests, and seconds to the first byte of the successful POST requests."""
    if not exists(path):
        return None
    counts = {"answered": 0, "errors": 0, "refused": 0, "aborted": 0}
    first = []
    for request in recent(path, seconds):
        if request["route"].startswith("ui:"):
            continue
        counts[outcome(request)] += 1
        begun = request["first_byte_seconds"].rpartition(" ")[2]
        if request["status"] == 200 and request["method"] == "POST" and begun[:1].isdigit():
            first.append(float(begun))
    first.sort()
    return dict(
        counts,
        seconds=seconds,
        first_byte_p50=percentile(first, 50),
        first_byte_p95=percentile(first, 95),
    )


def outcome(request):
    """As in files/usage/read.py."""
    status, refusal = request["status"], request["refusal"]
    if status == 499 or (status < 400 and not request.get("complete", "OK")):
        return "aborted"
    if status >= 500 or (status >= 400 and not refusal):
        return "errors"
    return "refused" if refusal else "answered"


def percentile(ranked, percent):
    """The nearest-rank percentile of sorted values."""
    return ranked[max(1, -(-len(ranked) * percent // 100)) - 1] if ranked else None


def main(asked):
    """`asked` has the project's name, directories and files of llmhost, units, and `seconds` of the
    log to summarize. An empty string means that the host has no such thing."""
    found, docker_error = containers(asked["project"]) if asked["project"] else ([], "")
    cards, gpu_error = gpus()
    history = text(asked["history"]).splitlines()
    needs_reboot = exists("/run/reboot-required")
    states = [run("systemctl", "is-active", unit) for unit in asked["units"]]
    return {
        "uptime_seconds": int(float((text("/proc/uptime") or "0").split()[0])),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
        "processors": os.cpu_count(),
        "reboot": sorted({*text("/run/reboot-required.pkgs").split()}) if needs_reboot else None,
        "disks": disks(asked["paths"]),
        "containers": found,
        "docker_error": docker_error,
        "stopped": stopped(asked["stopped"]),
        "gpus": cards,
        "gpu_error": gpu_error,
        "certificate_expires": certificate(asked["certificate"]) if asked["certificate"] else None,
        "units": {
            u: (out or why).split("\n")[0]
            for u, (out, why) in zip(asked["units"], states, strict=True)
        },
        "run": parsed(history[-1]) if history else None,
        "receipt": parsed(text(asked["receipt"])),
        "backup": parsed(text(asked["backup"])) if asked["backup"] else None,
        "requests": requests(asked["log"], asked["seconds"]) if asked["log"] else None,
        "now": int(time.time()),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
