"""A double of Docker's command for one container: a real Redis on a directory as its volume.

The directory in SITE has `volumes/llmhost_redis-data/_data`, `port`, and files that make it fail:
`hang` (it never restarts). A database with the key `poison` is unhealthy. As with a mounted volume,
the running server keeps the directory that it has open.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SITE = Path(os.environ["SITE"])
DATA = SITE / "volumes/llmhost_redis-data/_data"
CLI = ["redis-cli", "-p", (SITE / "port").read_text()]


def process() -> int:
    """The server's process, 0 if it does not run."""
    try:
        pid = int((SITE / "pid").read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return 0
    return 0 if state == "Z" else pid


def stopped() -> bool:
    return Path(f"/proc/{process()}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def answer(*words: str) -> str:
    ran = subprocess.run([*CLI, *words], capture_output=True, text=True, timeout=10)
    return ran.stdout.strip()


def start() -> None:
    options = {"port": CLI[2], "dir": DATA, "appendonly": "yes", "daemonize": "yes"}
    options |= {"pidfile": SITE / "pid", "save": "", "bind": "127.0.0.1"}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    subprocess.run(["redis-server", *words], check=True, stdout=subprocess.DEVNULL, timeout=10)


def end(number: int = signal.SIGTERM) -> None:
    if pid := process():
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)
        while process() == pid:
            time.sleep(0.01)


def status() -> str:
    if not process():
        return "exited"
    return "paused" if stopped() else "running"


def main(words: list[str]) -> str:
    if words[:2] == ["volume", "inspect"]:
        if words[-1] != "llmhost_redis-data":
            sys.exit(f"Error response from daemon: get {words[-1]}: no such volume")
        return str(DATA)
    assert words[-1] == "llmhost-redis-1", words
    match words[0]:
        case "inspect" if "Health" in words[2]:
            sick = answer("ping") != "PONG" or answer("exists", "poison") == "1"
            return "unhealthy" if sick else "healthy"
        case "inspect":
            return status()
        case "pause":
            os.kill(process(), signal.SIGSTOP)
        case "unpause":
            os.kill(process(), signal.SIGCONT)
        case "restart":
            while (SITE / "hang").exists():
                time.sleep(0.05)
            end()
            start()
    return ""


if __name__ == "__main__":
    print(main(sys.argv[1:]))
