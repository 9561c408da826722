"""Back up and restore the volumes of a stack with restic.

Sent to a host by `llmhost backup`, `llmhost restore` and deploys, or run there by
llmhost-backup.service; as root, by Python 3.10 or newer. The argument is a JSON object, see `main`;
standard input has the variables of restic, which are secret. Prints a JSON object, or a sentence
on standard error and ends with 1.
"""

import ctypes
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

TAG, DRAFT = "llmhost", "llmhost-draft"
STAGE, MARK = "llmhost-restore", "exchanging"
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
ROOM = 1.05
RENAME_EXCHANGE, AT_FDCWD, PR_SET_PDEATHSIG = 2, -100, 1  # linux/fs.h, fcntl.h, prctl.h
LIBC = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """Why nothing was done; the sentence is for an operator."""


def run(*command, fine=(0,), before=None):
    """Standard output of a command."""
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    try:
        ran = subprocess.run(command, **options, preexec_fn=before)
    except FileNotFoundError:
        raise Failure(f"{command[0]} is not installed: deploy this host first") from None
    if ran.returncode not in fine:
        lines = [line for line in ran.stderr.splitlines() if line.strip()]
        raise Failure(f"{command[0]} {command[1]} failed: {' '.join(lines[-3:])[:600]}")
    return ran.stdout


def docker(*words):
    return run("docker", *words)


def restic(*words, fine=(0,)):
    """If this process is killed, restic ends too: it would make a backup of what is not paused."""
    end = signal.SIGKILL
    return run("restic", *words, fine=fine, before=lambda: LIBC.prctl(PR_SET_PDEATHSIG, end))


def open_repository(create):
    """Fails without a repository, or with another password. It is created only on request: the
    place may be a disk that is not mounted."""
    try:
        restic("cat", "config")
        restic("unlock")  # locks of processes that are gone
        return
    except Failure as error:
        sentence = str(error)
    if "wrong password" in sentence:
        raise Failure("the repository has another password than backup_password")
    # restic's texts for a directory, an object store and a server.
    if not re.search(r"Is there a repository|does not exist|no such file", sentence, re.I):
        raise Failure(sentence)
    if not create:
        raise Failure(
            f"{os.environ['RESTIC_REPOSITORY']} has no repository; if its disk is mounted and this"
            " is the first backup, run llmhost backup with --create"
        )
    restic("init")


def volumes(declared):
    """Directory on this host and container by volume, of the volumes that exist."""
    found = {}
    for volume, container in declared.items():
        try:
            place = docker("volume", "inspect", "--format", "{{.Mountpoint}}", volume).strip()
        except Failure as error:
            if "no such volume" in str(error).lower():
                continue
            raise
        found[volume] = (Path(place), container)
    if not found:
        raise Failure("this host has no volumes with data: deploy it first")
    return found


def state(container):
    try:
        return docker("inspect", "--format", "{{.State.Status}}", container).strip()
    except Failure as error:
        if "no such object" in str(error).lower():
            return ""
        raise


@contextmanager
def locked(asked):
    """The lock of a deploy, with its owner for the message to others (files/history/lock.sh). None
    within a deploy, which has it."""
    if not asked["lock"]:
        yield
        return
    file = Path(asked["lock"])
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lock:
        end = time.monotonic() + asked["lock_seconds"]
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Failure("another run has locked this host; retry when it ends") from None
                time.sleep(0.5)
        file.with_suffix(".owner").write_text(f"{asked['owner']}\n{os.getpid()}\n")
        yield


@contextmanager
def paused(containers):
    """Pause the containers that run. A process of its own continues them when this one ends,
    however it ends."""
    running = [each for each in containers if state(each) == "running"]
    continues = 'cat >/dev/null; for each; do docker unpause "$each"; done >/dev/null 2>&1; :'
    command = ["sh", "-c", continues, "sh", *running]
    helper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        for container in running:
            docker("pause", container)
        yield
    finally:
        helper.stdin.close()
        helper.wait()
        still = [each for each in running if state(each) == "paused"]
    if still:
        raise Failure(f"still paused: {', '.join(still)}; run docker unpause")


def backup(asked):
    """Most data is read while the services work. They pause for what changed meanwhile."""
    open_repository(asked["create"])
    found = volumes(asked["volumes"])
    recover(found)
    place = ["--host", asked["host"], *(str(path) for path, _ in found.values())]
    restic("backup", "--json", "--tag", DRAFT, *place, fine=(0, 3))  # 3: files have gone
    containers = {container for _, container in found.values()}
    running = [each for each in sorted(containers) if state(each) == "running"]
    healthy = [each for each in running if health(each) == "healthy"]
    with locked(asked), paused([container for _, container in found.values()]):
        begun = time.monotonic()
        said = restic("backup", "--json", "--tag", TAG, *place)
        seconds = time.monotonic() - begun
    # Health checks of a paused container fail, and a deploy that follows requires health.
    unhealthy(healthy, asked["start_seconds"])
    of_host = ["--host", asked["host"], "--group-by", "host"]
    if drafts := [each["id"] for each in snapshots(asked["host"], DRAFT)]:
        restic("forget", *drafts)
    restic("forget", *of_host, "--tag", TAG, "--keep-within", f"{asked['keep_days']}d", "--prune")
    restic("check")
    summary = json.loads(said.splitlines()[-1])
    note(asked["record"], summary["snapshot_id"][:8])
    return {
        "snapshot": summary["snapshot_id"][:8],
        "volumes": sorted(found),
        "files": summary["total_files_processed"],
        "bytes": summary["total_bytes_processed"],
        "paused_seconds": round(seconds, 1),
    }


def note(record, snapshot):
    """The last success, for `llmhost status`."""
    file = Path(record)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"time": int(time.time()), "snapshot": snapshot}) + "\n")
    new.replace(file)


def snapshots(host="", tag=TAG):
    words = ["--host", host] if host else []
    return json.loads(restic("snapshots", "--json", "--tag", tag, *words)) or []


def listed(_asked):
    open_repository(create=False)
    found = sorted(snapshots(), key=lambda each: each["time"])
    return {
        "snapshots": [
            {
                "snapshot": each["id"][:8],
                "host": each["hostname"],
                "time": each["time"][:19] + re.sub(r".*?(Z|[+-]\d\d:\d\d)$", r"\1", each["time"]),
                "volumes": sorted(Path(path).parent.name for path in each["paths"]),
            }
            for each in found
        ]
    }


def restore(asked):
    """Restore beside the volumes, exchange each with its volume in one step, then restart the
    containers: until then they keep the data that they have open. Undone if one becomes
    unhealthy."""
    open_repository(create=False)
    snapshot = chosen(asked)
    found = volumes(asked["volumes"])
    recover(found)
    sources = {volume: source(snapshot, volume) for volume in found}
    check_room(snapshot, found)
    result = {"snapshot": snapshot["id"][:8], "time": snapshot["time"][:19], "volumes": {}}
    staged = {}
    try:
        for volume, (path, _) in found.items():
            staged[volume] = stage(snapshot, sources[volume], path)
            result["volumes"][volume] = measured(staged[volume])
        if not asked["drill"]:
            with locked(asked):
                put(found, staged, asked["start_seconds"])
    finally:
        for path, _ in found.values():
            shutil.rmtree(path.parent / STAGE, ignore_errors=True)
    return result


def recover(found):
    """Finish what a restore left that was killed: some containers may have open what it put aside,
    and others not. Each gets what is in its volume now."""
    left = {path.parent / STAGE: container for path, container in found.values()}
    cut = [container for place, container in left.items() if (place / MARK).exists()]
    if running := [each for each in cut if state(each) == "running"]:
        docker("restart", *running)
    for place in left:
        shutil.rmtree(place, ignore_errors=True)


def chosen(asked):
    known = snapshots(asked["from"])
    of = [each for each in known if each["id"].startswith(asked["snapshot"])]
    if not of:
        what = f" {asked['snapshot']}" if asked["snapshot"] else ""
        raise Failure(f"the repository has no backup{what} of {asked['from']}")
    return max(of, key=lambda each: each["time"])


def source(snapshot, volume):
    """Path of a volume in a snapshot; the other host's Docker may have another directory."""
    for path in snapshot["paths"]:
        if Path(path).parent.name == volume:
            return path
    names = ", ".join(sorted(Path(path).parent.name for path in snapshot["paths"]))
    raise Failure(f"the backup {snapshot['id'][:8]} lacks {volume}; it has {names}")


def check_room(snapshot, found):
    size = json.loads(restic("stats", "--json", "--mode", "restore-size", snapshot["id"]))
    for path, _ in found.values():
        free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
        if free < size["total_size"] * ROOM:
            raise Failure(
                f"the backup needs {size['total_size'] / 2**30:.1f} GiB in addition to the current"
                f" data, and {path} has {free / 2**30:.1f} GiB left"
            )


def stage(snapshot, path, volume):
    """The restored directory; restic compares each file with the repository."""
    target = volume.parent / STAGE
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    words = ["--target", str(target), "--include", path, "--verify"]
    restic("restore", snapshot["id"], *words)
    return target / path.lstrip("/")


def measured(directory):
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def put(found, staged, seconds):
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # it ends by itself, one way or the other
    for path, _ in found.values():
        (path.parent / STAGE / MARK).touch()
    containers = [each for _, each in found.values() if state(each) in ("running", "restarting")]
    exchanged = []
    try:
        for volume, (path, _) in found.items():
            exchange(staged[volume], path)
            exchanged.append(volume)
        restarted(containers, seconds)
    except BaseException:
        for volume in exchanged:
            exchange(staged[volume], found[volume][0])
        if exchanged and containers:
            docker("restart", *containers)
        raise


def exchange(one, other):
    """Exchange two directories in one step: no power cut leaves a mixture."""
    paths = os.fsencode(one), os.fsencode(other)
    os.sync()
    if LIBC.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE):
        why = os.strerror(ctypes.get_errno())
        raise Failure(f"{other} cannot be exchanged with the restored directory: {why}")
    os.sync()


def restarted(containers, seconds):
    if not containers:
        return
    docker("restart", *containers)
    if left := unhealthy(containers, seconds):
        raise Failure(f"{', '.join(left)} did not become healthy; the former data is restored")


def unhealthy(containers, seconds):
    """Wait until all of these are healthy; those that are not by then."""
    end = time.monotonic() + seconds
    while containers := [each for each in containers if health(each) != "healthy"]:
        if time.monotonic() > end:
            break
        time.sleep(0.5)
    return containers


def health(container):
    """As Docker says it; that of a container without a check is not known to be bad."""
    form = "{{if .State.Health}}{{.State.Health.Status}}{{else}}healthy{{end}}"
    return docker("inspect", "-f", form, container).strip()


def main(asked):
    """`do` is backup, listed or restore. `volumes` are containers by volume, `host` and `from`
    names of hosts in the inventory, `snapshot` the beginning of an id or empty, `lock` the file of
    the lock or empty, `owner` a record for it; `record` is the file that says when the last backup
    succeeded."""
    secrets = json.loads(sys.stdin.read())
    os.environ.update(secrets, RESTIC_REPOSITORY=asked["repository"])
    os.environ.setdefault("RESTIC_CACHE_DIR", "/var/cache/llmhost/restic")
    for number in SIGNALS:
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    return {"backup": backup, "listed": listed, "restore": restore}[asked["do"]](asked)


if __name__ == "__main__":
    try:
        print(json.dumps(main(json.loads(sys.argv[1]))))
    except Failure as error:
        sys.exit(str(error))
