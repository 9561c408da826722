"""Train an adapter in a container, and give back what was stopped for it.

`llmhost train` copies this file to the directory of a job and runs it there as root, with Python
3.10 or newer:

    python3 -I host.py DIRECTORY check | forget | start | run | give_back | status

The directory has `question.json`, see Question, and `job` with the input of the container. `run`
and `give_back` are called by a unit of systemd, which is enabled while a training is wanted: it
continues after a reboot. Prints a JSON object, or a sentence on standard error and ends with 1.
"""

import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

USER = 10001
PAUSED = 75
KILLED = 128 + signal.SIGKILL
UNITS = Path("/etc/systemd/system")
PREFIX = "llmhost-training-"
BROUGHT = "brought"
"""File beside an adapter that a controller has."""
STOP_SECONDS = 180
MOST_STARTS = 3
LOCK_SECONDS = 600
MIB = 1024 * 1024
NO_MEMORY = ("[N/A]", "[Not Supported]")
"""What nvidia-smi prints for a GPU without memory of its own."""
DAY_MINUTES = 24 * 60

UNIT = """# Managed by llmhost: exists while {name} is trained.
[Unit]
Description=Train the adapter {name}
After=docker.service network.target
Wants=docker.service

[Service]
ExecStart=/usr/bin/python3 -I {directory}/host.py {directory} run
# However it ends.
ExecStopPost=/usr/bin/python3 -I {directory}/host.py {directory} give_back
KillMode=mixed
TimeoutStopSec={stop_seconds}
Nice=5

[Install]
WantedBy=multi-user.target
"""


class Failure(Exception):
    """Why nothing was done; the sentence is for an operator."""


class Question:
    """What `question.json` says: `name`, `image`, `digest` of the job, `gpus` by number or UUID
    (none or one), `services` to stop, `stopped` with their marks, `ports` of those that the gateway
    asks, `gateway` with its configuration, `drain_seconds` that their requests may take, `compose`
    file, `start_seconds`, `hours` or an empty text, `max_minutes`, `lock` of deploys."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        found: dict[str, Any] = json.loads((directory / "question.json").read_text())
        self.name: str = found["name"]
        self.image: str = found["image"]
        self.digest: str = found["digest"]
        self.gpus: list[str] = found["gpus"]
        self.services: list[str] = found["services"]
        self.stopped = Path(found["stopped"])
        self.ports: dict[str, int] = found["ports"]
        self.gateway = Path(found["gateway"])
        self.drain_seconds: int = found["drain_seconds"]
        self.compose: str = found["compose"]
        self.start_seconds: int = found["start_seconds"]
        self.hours: str = found["hours"]
        self.max_minutes: int = found["max_minutes"]
        self.lock = Path(found["lock"])

    @property
    def unit(self) -> str:
        return f"{PREFIX}{self.name}.service"

    @property
    def container(self) -> str:
        return f"{PREFIX}{self.name}"

    @property
    def work(self) -> Path:
        return self.directory / "work"


def output_of(*command: str) -> str:
    """Standard output of a command."""
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    try:
        ran = subprocess.run(command, **options)
    except FileNotFoundError:
        raise Failure(f"{command[0]} is not installed: deploy this host first") from None
    if ran.returncode:
        lines = [line for line in (ran.stderr or ran.stdout).splitlines() if line.strip()]
        raise Failure(lines[-1][:600] if lines else f"{command[0]} failed and printed nothing")
    return str(ran.stdout)


def state_of(question: Question) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads((question.directory / "state.json").read_text())
        return found
    return {}


def note(question: Question, **changes: object) -> None:
    """Change the job's state, at once or not at all."""
    file = question.directory / "state.json"
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps({**state_of(question), **changes}))
    draft.replace(file)


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def is_active(unit: str) -> bool:
    asked = ["systemctl", "show", "--property=ActiveState", "--value", unit]
    found = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    return found in ("active", "activating", "deactivating", "reloading")


def seconds_left(hours: str, moment: datetime) -> float:
    """Seconds until the window of the day ends; 0 outside of it, no limit without one. `moment` is
    local time."""
    if not hours:
        return math.inf
    begin, end = (int(each[:2]) * 60 + int(each[3:]) for each in hours.split("-"))
    passed = moment.hour * 60 + moment.minute + moment.second / 60
    if (passed - begin) % DAY_MINUTES >= (end - begin) % DAY_MINUTES:
        return 0.0
    last = moment.replace(hour=end // 60, minute=end % 60, second=0, microsecond=0)
    if last <= moment:
        last += timedelta(days=1)
    # Not a difference of clock times: that night the clocks may change.
    return last.timestamp() - moment.timestamp()


def check_hours(question: Question) -> float:
    left = seconds_left(question.hours, datetime.now())
    if not left:
        clock = datetime.now().astimezone().strftime("%H:%M %Z")
        raise Failure(f"it may run {question.hours}, and here it is {clock}")
    return left


def gpus(question: Question) -> list[dict[str, str]]:
    """UUID and memory in MiB of each GPU of the job."""
    if not question.gpus:
        return []
    fields = ("index", "uuid", "memory.total", "memory.free")
    asked = f"--query-gpu={','.join(fields)}"
    printed = output_of("nvidia-smi", asked, "--format=csv,noheader,nounits")
    rows = [line.split(", ") for line in printed.splitlines()]  # and sentences about broken ones
    there = [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]
    found = []
    for wanted in question.gpus:
        named = [each for each in there if wanted in (each["index"], each["uuid"])]
        if not named:
            known = ", ".join(f"{each['index']} = {each['uuid']}" for each in there) or "none"
            raise Failure(f"it needs GPU {wanted}, which is not on this host (there: {known})")
        found += named
    return found


def memory_of(gpu: dict[str, str], kind: str) -> int | None:
    """Bytes of a GPU's memory; None if it uses the host's, as that of a DGX Spark."""
    if gpu[kind] in NO_MEMORY:
        return None
    try:
        return int(float(gpu[kind])) * MIB
    except ValueError:
        raise Failure(f"GPU {gpu['index']} reports {gpu[kind]} as its memory: repair it") from None


def memory(kind: str) -> int:
    """Bytes of the host's memory, `MemTotal` or `MemAvailable`."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024
    return 0


def check_memory(question: Question, needed: int, *, free: bool) -> None:
    """Fail if a training does not fit: into what there is, or into what is `free` now."""
    kinds = ("memory.free", "MemAvailable") if free else ("memory.total", "MemTotal")
    sizes = [(f"GPU {each['index']}", memory_of(each, kinds[0])) for each in gpus(question)]
    places = [(place, size) for place, size in sizes if size is not None]
    for place, there in places or [("this host", memory(kinds[1]))]:
        if needed > there:
            verb = "are free" if free else "are there"
            raise Failure(
                f"it needs up to {gib(needed)} of memory, and on {place} {gib(there)} {verb}; lower"
                " batch_size or context_tokens"
                + ("" if places else ", or stop other services with stop_services")
            )


def gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"


def options(question: Question) -> list[str]:
    """Of `docker run`: no network, nothing writable but `work`, no privileges."""
    root = question.directory
    devices = [f"--device=nvidia.com/gpu={name}" for name in device_names(question)]
    return [
        *("--rm", "--name", question.container, "--network", "none", "--read-only"),
        *("--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL"),  # noqa: S108 # its own
        *("--security-opt", "no-new-privileges", "--user", f"{USER}:{USER}"),
        *("--pids-limit", "4096", "--shm-size", "2g", "--env", "HOME=/tmp"),
        *("--mount", f"type=bind,source={root}/job,target=/job,readonly"),
        *("--mount", f"type=bind,source={question.work},target=/work"),
        *devices,
    ]


def device_names(question: Question) -> list[str]:
    """CDI on WSL knows only `all`."""
    found = [each["uuid"] for each in gpus(question)]
    return ["all"] if found and Path("/dev/dxg").exists() else found


def check(question: Question) -> dict[str, Any]:
    """Whether the training can begin, and which services it `stops`. Nothing is stopped now, and no
    checkpoint is removed."""
    check_alone()
    check_hours(question)
    check_gateway(question)
    if subprocess.run(
        ["docker", "image", "inspect", question.image], capture_output=True
    ).returncode:
        raise Failure("its image is not built here yet: deploy this host first")
    remove_container(question)  # of a check that was interrupted
    prepare(question)
    command = ["docker", "run", *options(question), question.image, "check", "/job"]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ran.returncode:
        raise Failure(last_line(ran.stderr) or "the check of the job failed and printed nothing")
    found: dict[str, Any] = json.loads(last_line(ran.stdout))
    check_memory(question, found["memory_bytes"], free=False)
    # What is there of this job, or of an earlier one, is replaced.
    free = shutil.disk_usage(question.directory).free + size_of(question.work)
    if found["disk_bytes"] > free:
        raise Failure(
            f"it needs {gib(found['disk_bytes'])} in {question.directory} for checkpoints, and"
            f" {gib(free)} are free; free space there, or set training_directory"
        )
    note(question, memory_bytes=found["memory_bytes"])
    return {**found, "stops": running(question), "replaces": replaced(question)}


def replaced(question: Question) -> str:
    """What a start would remove of this job as it was declared before; empty if nothing, or if the
    controller has it."""
    done = (question.work / BROUGHT).exists()
    if done or state_of(question).get("digest") in ("", question.digest):
        return ""
    if (question.work / "result.json").exists():
        return "its finished adapter"
    return "its checkpoints" if any(question.work.glob("checkpoints/*/complete")) else ""


def check_alone() -> None:
    units = [each.name for each in UNITS.glob(f"{PREFIX}*.service")]
    for unit in units:
        if is_active(unit):
            other = unit.removeprefix(PREFIX).removesuffix(".service")
            raise Failure(f"this host is training {other} already; wait, or stop that first")


def check_gateway(question: Question) -> None:
    """A gateway that cannot read the marks would send requests to services that are stopped."""
    if not question.ports or not question.gateway.exists():
        return
    if f"{question.stopped}/" not in question.gateway.read_text():
        raise Failure("its gateway was deployed by an older llmhost: deploy this host first")
    for place in (question.stopped, *question.stopped.parents):
        if place.exists() and not place.stat().st_mode & 0o001:
            raise Failure(
                f"its gateway cannot see {question.stopped}, because {place} is closed to other"
                f" users; open it with: chmod o+x {place}"
            )


def size_of(place: Path) -> int:
    """Bytes of the files below a directory."""
    return sum(each.lstat().st_size for each in place.rglob("*") if each.is_file())


def forget(question: Question) -> dict[str, Any]:
    """Let the next start begin without checkpoints."""
    check_alone()
    note(question, digest="")
    return {}


def prepare(question: Question) -> None:
    """Directories for the container's user. What a link points to, which that user may have made,
    keeps its owner."""
    question.work.mkdir(exist_ok=True)
    question.directory.chmod(0o700)
    for place in (question.directory / "job", question.work):
        for each in (place, *place.iterdir()):
            os.chown(each, USER, USER, follow_symlinks=False)


def start(question: Question) -> dict[str, Any]:
    """Begin, or continue; returns at once. Checkpoints of another job are removed."""
    check_alone()
    check_hours(question)
    if state_of(question).get("digest") != question.digest:
        for each in question.work.glob("*"):
            shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
    note(question, digest=question.digest, state="running", why="", starts=0, begun=now())
    # Services start one after the other, and each may try twice.
    seconds = STOP_SECONDS + 2 * question.start_seconds * len(question.services)
    unit = UNIT.format(name=question.name, directory=question.directory, stop_seconds=seconds)
    try:
        (UNITS / question.unit).write_text(unit)
        output_of("systemctl", "daemon-reload")
        output_of("systemctl", "enable", question.unit)
        output_of("systemctl", "start", "--no-block", question.unit)
    except (Failure, OSError) as failure:
        note(question, state="failed", why=str(failure), ended=now())
        remove_unit(question)
        raise
    return {}


def remove_unit(question: Question) -> None:
    """Without a reload: systemd knows the unit until it has ended."""
    subprocess.run(["systemctl", "disable", question.unit], capture_output=True)
    (UNITS / question.unit).unlink(missing_ok=True)


def remove_container(question: Question) -> None:
    subprocess.run(["docker", "rm", "--force", question.container], capture_output=True)


def run(question: Question) -> dict[str, Any]:
    """The training; the unit's main process."""
    try:
        left = seconds_left(question.hours, datetime.now())
        if not left:  # after a reboot
            note(question, state="paused", why="its hours are over", ended=now())
            return {}
        starts = int(state_of(question).get("starts", 0)) + 1
        if starts > MOST_STARTS:
            raise Failure(f"it was interrupted {MOST_STARTS} times")
        note(question, starts=starts)
        with locked(question):
            halt(question, running(question))
        check_memory(question, int(state_of(question).get("memory_bytes", 0)), free=True)
        train(question, min(left, question.max_minutes * 60.0))
    except (Failure, OSError) as failure:
        note(question, state="failed", why=str(failure), ended=now())
    return {}


@contextmanager
def locked(question: Question) -> Iterator[None]:
    """The lock of a deploy (files/history/lock.sh), so that none runs while services stop."""
    question.lock.parent.mkdir(parents=True, exist_ok=True)
    with question.lock.open("a") as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failure("another run has locked this host; retry when it ends") from None
                time.sleep(1)
        yield


def running(question: Question) -> list[str]:
    """Those of the services to stop that run, and which no operator stopped. One with a mark of
    this training runs if that was killed between the mark and the stop."""
    command = ["docker", "compose", "--file", question.compose, "ps", "--services"]
    there = output_of(*command).split()
    return [
        each
        for each in question.services
        if each in there and (is_ours(question, each) or not (question.stopped / each).exists())
    ]


def halt(question: Question, services: list[str]) -> None:
    """Stop services when their requests have ended. The marks come first: the gateway sends no new
    requests, the healer does not start them, and whatever happens from then on, they are given
    back."""
    for service in services:
        mark(question, service)
    drain(question, [question.ports[each] for each in services if each in question.ports])
    for service in reversed(services):
        output_of("docker", "compose", "--file", question.compose, "stop", service)


def mark(question: Question, service: str) -> None:
    question.stopped.mkdir(mode=0o755, parents=True, exist_ok=True)
    place = question.stopped / service
    draft = place.with_name(f"{service}.new")
    draft.write_text(f"stopped by the training {question.name} at {now()}\n")
    draft.replace(place)


def drain(question: Question, ports: list[int]) -> None:
    """Wait until no request is open at these ports, at most as long as it may take. nginx keeps
    connections that it does not use for 4 s."""
    deadline = time.monotonic() + question.drain_seconds
    quiet = 0
    while ports and quiet < 2 and time.monotonic() < deadline:
        time.sleep(1)
        quiet = 0 if open_requests(ports) else quiet + 1
    if ports and quiet < 2 and open_requests(ports):
        seconds = question.drain_seconds
        print(f"requests that were open after {seconds} s are cut off", file=sys.stderr)


def open_requests(ports: list[int]) -> int:
    """How many connections to services there are on the loopback interface."""
    printed = output_of("ss", "-Htn", "state", "established", "dst", "127.0.0.1")
    peers = [line.split()[3] for line in printed.splitlines()]
    return sum(peer.rpartition(":")[2] in map(str, ports) for peer in peers)


def train(question: Question, seconds: float) -> None:
    """Run the container until it ends, or its time does."""
    remove_container(question)
    command = ["docker", "run", *options(question), question.image, "train", "/job", "/work"]
    with log_of(question).open("ab") as log:
        begun = log.tell()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    ending = ""

    def end(*_: object) -> None:
        nonlocal ending
        ending = ending or "it was stopped"
        command = ["docker", "stop", "--time", "120", question.container]
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    signal.signal(signal.SIGTERM, end)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        ending = "its time is over"
        end()
        process.wait()
    finish(question, process.returncode, ending, begun)


def log_of(question: Question) -> Path:
    return question.directory / "log"


def finish(question: Question, status: int, ending: str, begun: int) -> None:
    """Note how a run ended; its output is in the log from `begun` on."""
    if (question.work / "result.json").exists():
        note(question, state="done", why="", ended=now())
    elif status == PAUSED or ending:
        note(question, state="paused", why=ending or "it was stopped", ended=now())
    else:
        why = "its container was killed, as the system does if memory is exhausted"
        if status != KILLED:
            log = log_of(question).read_bytes()[begun:].decode(errors="replace")
            why = last_line(log) or f"its container ended with status {status} and printed nothing"
        note(question, state="failed", why=why, ended=now())


def give_back(question: Question) -> dict[str, Any]:
    """Start what was stopped, unless the host shuts down: then the unit continues at the next boot,
    as it does if the host loses its power before the end.

    In their order, one after the other: services that share a GPU measure its free memory when they
    start."""
    asked = ["systemctl", "is-system-running"]
    if subprocess.run(asked, capture_output=True, text=True).stdout.strip() == "stopping":
        note(question, state="running", why="")
        return {}
    if state_of(question).get("state") == "running":
        note(question, state="interrupted", why="its process was killed", ended=now())
    remove_container(question)
    for service in question.services:
        if is_ours(question, service):
            if problem := restarted(question, service):
                note(question, why=f"{state_of(question).get('why', '')}; {problem}".lstrip("; "))
            (question.stopped / service).unlink(missing_ok=True)
    remove_container(question)
    remove_unit(question)
    return {}


def is_ours(question: Question, service: str) -> bool:
    with suppress(OSError):
        return f"by the training {question.name} " in (question.stopped / service).read_text()
    return False


def restarted(question: Question, service: str) -> str:
    """Start a service and wait until it is healthy; why it failed. Docker itself may be down, and
    is waited for."""
    compose = ["docker", "compose", "--file", question.compose, "up", "--detach", "--no-deps"]
    wait = ["--wait", "--wait-timeout", str(question.start_seconds)]
    deadline = time.monotonic() + question.start_seconds
    while True:
        try:
            output_of(*compose, *wait, service)
            return ""
        except Failure as failure:
            if time.monotonic() > deadline:
                return f"{service} could not be started: {failure}"
        time.sleep(2)


def status(question: Question) -> dict[str, Any]:
    """The state, and all lines of progress: a training that is resumed rewrites them."""
    lines: list[str] = []
    with suppress(OSError):
        lines = (question.work / "progress.jsonl").read_text().splitlines()
    progress = []
    for line in lines:
        with suppress(ValueError):
            progress.append(json.loads(line))
    return {**state_of(question), "active": is_active(question.unit), "progress": progress}


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:600] if lines else ""


def fail(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(1)


def main(directory: str, do: str) -> None:
    functions = {"check": check, "forget": forget, "start": start, "run": run}
    functions |= {"give_back": give_back, "status": status}
    try:
        print(json.dumps(functions[do](Question(Path(directory)))))
    except Failure as failure:
        fail(str(failure))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
