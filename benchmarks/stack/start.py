"""Cost and benefit of baking: `python -m benchmarks.stack.start`, as root (it creates a machine).

Time from a cold start to the first token of a baked container and of the bare engine with the same
file, and the data that a change of an option or of the engine's version moves. Before each start
the kernel's page cache is dropped; container and bare engine alternate. The engine is llama.cpp's
server with a model of random weights.
"""

import argparse
import json
import statistics
import tempfile
import time
from itertools import permutations
from pathlib import Path
from typing import Any
from unittest import mock

from llmhost.tasks.stack import run_stack
from testbed import Lan, Machine, tiny_model
from tests.integration.docker_site import DockerSite, docker_site
from tests.integration.harness import deploy

CONTAINER, BARE = "llmhost-llamacpp-1", "/opt/bare"

# Prints the milliseconds from the start to the first byte of the first event of a stream.
FIRST_TOKEN = """\
begun=$(date +%s%N); last=$(( $(date +%s) + 120 ))
{start} >/dev/null 2>&1 </dev/null
until [ -n "$(curl -sN --fail -m 60 http://127.0.0.1:{port}/v1/completions \\
  -H 'Content-Type: application/json' -d '{body}' 2>/dev/null | head -c 1)" ]; do
  [ $(date +%s) -lt $last ] || exit 1
  sleep 0.2
done
echo $(( ($(date +%s%N) - begun) / 1000000 ))
"""
BODY = '{"model": "tiny", "prompt": "One, two,", "max_tokens": 1, "stream": true}'

# Seconds after which a virtual machine has returned most of its freed memory.
SETTLED = 15

# The engine's file system and the baked file, on the machine's disk.
LAY_OUT = f"""\
set -e
mkdir -p {BARE}/models
docker export {CONTAINER} | tar -x -C {BARE} --anchored \\
  --exclude=dev --exclude=proc --exclude=models
docker cp {CONTAINER}:/models/tiny.gguf {BARE}/models/tiny.gguf
mkdir -p {BARE}/dev {BARE}/proc
mount --bind /dev {BARE}/dev; mount -t proc proc {BARE}/proc
sha256sum {BARE}/models/tiny.gguf
"""


def model_file(path: Path) -> str:
    """A llama model of about 2.6 GB, the smallest that is realistic; its SHA-256."""
    with mock.patch.multiple(tiny_model, _LAYERS=12, WIDTH=2048, _HEADS=16, _HIDDEN=6144):
        return tiny_model.write(path)


def first_token(machine: Machine, start: str, port: int) -> float:
    """Seconds to the first token, from a start without its files in memory."""
    # A machine in a namespace shares the kernel and page cache of this one.
    machine.ssh("sync")
    Path("/proc/sys/vm/drop_caches").write_text("3")
    # With fragmented free memory, mapping a file takes up to twice the time.
    Path("/proc/sys/vm/compact_memory").write_text("1")
    # A virtual machine returns freed memory to its host over several seconds, and allocating it
    # again takes as long as loading: an immediate start would avoid part of that.
    time.sleep(SETTLED)
    script = FIRST_TOKEN.format(start=start, port=port, body=BODY)
    return int(machine.ssh(script).stdout.split()[-1]) / 1000


def cold_starts(machine: Machine, port: int) -> None:
    """Container and bare engine alternately; `port` is the container's."""
    machine.ssh(LAY_OUT)
    inspected = machine.ssh(f"docker inspect --format '{{{{json .Config.Cmd}}}}' {CONTAINER}")
    arguments = json.loads(inspected.stdout)
    arguments[arguments.index("--port") + 1] = str(port + 1)
    words = " ".join(f"'{word}'" for word in arguments)
    # The image has no env(1): chroot finds the program by its path in the image.
    path = "/app:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    bare_engine = f"env PATH={path} LLAMA_ARG_OFFLINE=1 chroot {BARE} llama-server"
    # A process with open output would keep the connection open.
    alone_in_the_back = f"setsid {bare_engine} {words} >/dev/null 2>&1 </dev/null &"
    bare = f"{alone_in_the_back} echo $! >/run/bare.pid; true"
    up = "docker compose --file /opt/llmhost/compose.yaml up --detach"
    # Command to stop or remove it before, and command to start it.
    ways = {
        "container started": ("", f"docker start {CONTAINER}", port),
        "container made": (f"docker rm --force {CONTAINER}", up, port),
        "bare engine": ("", bare, port + 1),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    stop = (
        f"docker stop --time 2 {CONTAINER}; kill -9 $(cat /run/bare.pid 2>/dev/null);"
        " rm -f /run/bare.pid; sleep 1"
    )
    try:
        # In all orders, because the previous run affects the state of the memory.
        for order in permutations(ways):
            for way in order:
                before, start, its_port = ways[way]
                machine.ssh(f"{stop}; {before}", check=False)
                seconds[way].append(first_token(machine, start, its_port))
    finally:
        machine.ssh(f"{stop}; umount {BARE}/dev {BARE}/proc", check=False)
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    for way, median in medians.items():
        ratio = median / medians["bare engine"]
        print(
            f"{way}: {median:.2f} s to the first token (median of {len(seconds[way])},"
            f" {min(seconds[way]):.2f} to {max(seconds[way]):.2f}), {ratio:.2f} times the bare"
            " engine",
            flush=True,
        )


def received(machine: Machine) -> int:
    """Bytes that the machine has received over the network."""
    counted = machine.ssh("cat /sys/class/net/[!ldbv]*/statistics/rx_bytes; true").stdout.split()
    return sum(map(int, counted))


def weights(machine: Machine, service: str) -> tuple[str, bool]:
    """The weights image, and whether the container's image still has its layer first."""
    layers = "docker image inspect --format '{{.Id}} {{.Created}} {{json .RootFS.Layers}}' "
    image = machine.ssh("docker image ls --quiet 'llmhost/model-*'").stdout.split()[0]
    found = machine.ssh(layers + image).stdout.strip()
    running = f"docker inspect --format '{{{{.Image}}}}' {service}"
    whole = machine.ssh(layers + machine.ssh(running).stdout.strip()).stdout
    first = json.loads(found.split(" ", 2)[2])[0]
    return found, json.loads(whole.split(" ", 2)[2])[0] == first


def change(site: DockerSite, what: str, **changes: Any) -> None:
    """Deploy with a change and print its cost."""
    before, bytes_before = weights(site.machine, CONTAINER), received(site.machine)
    begun = time.monotonic()
    outcome = deploy(site.machine, run_stack, site.settings(**changes))
    seconds = time.monotonic() - begun
    assert outcome.succeeded, outcome.output
    after, moved = weights(site.machine, CONTAINER), received(site.machine) - bytes_before
    kept = after == before and after[1]
    print(
        f"{what}: {seconds:.1f} s; weights {'kept' if kept else 'MOVED'}, {moved / 1024:.0f} KiB"
        f" came over the network; changed: {', '.join(outcome.changed)}",
        flush=True,
    )


def main() -> None:
    """The whole benchmark, in about ten minutes."""
    argparse.ArgumentParser(description="Measure baked containers").parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="llmhost-start-") as directory,
        Lan.create("cold-start") as lan,
        docker_site(lan, lan.machine("server"), Path(directory)) as found,
    ):
        path = Path(directory, "large.gguf")
        site = DockerSite(found.machine, found.registry, found.engine, path, model_file(path))
        print(f"model: {path.stat().st_size / 1e6:.0f} MB of random weights", flush=True)
        begun = time.monotonic()
        outcome = deploy(site.machine, run_stack, site.settings())
        assert outcome.succeeded, outcome.output
        print(f"first deploy of the stack: {time.monotonic() - begun:.1f} s", flush=True)
        change(site, "another option of the engine", llamacpp_threads=2)
        other = site.other_engine()
        change(site, "another engine", llamacpp_threads=2, llamacpp_image=other)
        port = site.settings().options("llamacpp").port
        assert port
        cold_starts(site.machine, port)


if __name__ == "__main__":
    main()
