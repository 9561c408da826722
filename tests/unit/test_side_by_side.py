"""Images of a host are built side by side: which ones, by which processes, and what is left.

The deploys are of this machine, with a double of docker, in processes of their own.
"""

import base64
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llmhost.docker.image import ModelImage, ServiceImage, WeightsFile
from llmhost.docker.image_scripts import whole_build
from llmhost.docker.side_by_side import Capacity, next_build
from llmhost.resources import FILES
from llmhost.system.files import File
from llmhost.units import GIB

ROOT = Path(__file__).parents[2]
COPY = File("Dockerfile", "FROM engine\n")
RUN = File("Dockerfile", "FROM engine\nRUN make\n")
WEIGHTS = WeightsFile("ab" * 32, "tiny.gguf", False, "/models/tiny.gguf")
MODEL = ModelImage("tiny", (WEIGHTS,))
LARGE = Capacity(threads=16, available_bytes=256 * GIB)


def image(service: str, context: File = COPY, engine: str | None = None) -> ServiceImage:
    reference = f"registry/{service}@sha256:{'0' * 64}" if engine is None else engine
    return ServiceImage(service, reference, (), (context,))


ONE, TWO, THREE, FOUR = map(image, ("one", "two", "three", "four"))
APP = image("app", RUN)


def begun(images: list[ServiceImage], capacity: Capacity) -> list[str]:
    """Services whose builds begin at once, in order."""
    waiting, running = [*images], list[ServiceImage]()
    while each := next_build(waiting, running, capacity):
        waiting.remove(each)
        running.append(each)
    return [each.service for each in running]


@pytest.mark.parametrize(
    ("threads", "gib", "expected"),
    [
        (16, 256, ["one", "two", "three"]),
        (2, 256, ["one", "two"]),
        (1, 256, ["one"]),
        (16, 2, ["one", "two"]),
        (16, 1.9, ["one"]),
        (16, 0, ["one"]),  # as one after the other
    ],
)
def test_processors_and_memory_limit_the_builds(
    threads: int, gib: float, expected: list[str]
) -> None:
    capacity = Capacity(threads, int(gib * GIB))
    assert begun([ONE, TWO, THREE, FOUR], capacity) == expected


@pytest.mark.parametrize("instruction", ["RUN make", "  run make", "RUN --network=none make"])
def test_build_that_runs_programs_needs_more_memory(instruction: str) -> None:
    app = image("app", File("Dockerfile", f"FROM engine\n{instruction}\n"))
    assert begun([app, ONE], replace(LARGE, available_bytes=5 * GIB)) == ["app", "one"]
    assert begun([app, ONE, TWO], replace(LARGE, available_bytes=5 * GIB)) == ["app", "one"]
    assert begun([ONE, app, TWO], replace(LARGE, available_bytes=4 * GIB)) == ["one", "two"]
    assert begun([app], Capacity(1, 0)) == ["app"]


def test_images_that_share_layers_are_built_one_after_the_other() -> None:
    same_engine = replace(TWO, engine=ONE.engine)
    assert begun([ONE, same_engine, THREE], LARGE) == ["one", "three"]
    same_model = replace(ONE, models=(MODEL,)), replace(TWO, models=(MODEL,))
    assert begun([*same_model, THREE], LARGE) == ["one", "three"]
    # The builder pulls their bases, which nothing else holds.
    own = [image(name, File("Dockerfile", "FROM x@sha256:1\n"), "") for name in ("x", "y")]
    assert begun([*own, ONE], LARGE) == ["x", "one"]


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _running(mark: str) -> bool:
    """Whether a process has this word among its arguments."""
    found = subprocess.run(["pgrep", "-f", "--", mark], capture_output=True, text=True)
    return bool(found.stdout)


@contextmanager
def shell(place: Path, **scripts: str) -> Iterator["subprocess.Popen[str]"]:
    for name, text in scripts.items():
        (place / f"{name}.build").write_text(text)
    (place / "tmp").mkdir()
    command = ["sh", "-c", (FILES / "docker/builds.sh").read_text(), "builds", str(place)]
    environment = {**os.environ, "TMPDIR": str(place / "tmp")}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout and process.stdin
        _, threads, memory = process.stdout.readline().split()
        assert int(threads) == len(os.sched_getaffinity(0)) and int(memory) > 0
        yield process


def test_host_s_shell_runs_builds_at_the_same_time(tmp_path: Path) -> None:
    one = f"touch {tmp_path}/one; until [ -e {tmp_path}/two ]; do sleep 0.05; done; echo it"
    two = f"touch {tmp_path}/two; until [ -e {tmp_path}/one ]; do sleep 0.05; done; cat; exit 7"
    with shell(tmp_path, one=one, two=two, odd="printf 'no end \\377'") as process:
        assert process.stdin and process.stdout
        print("one\ntwo\nodd", file=process.stdin, flush=True)
        ended = {}
        for _ in range(3):
            word, name, status, memory, *output = process.stdout.readline().split()
            assert word == "ended" and int(memory) > 0
            ended[name] = int(status), base64.b64decode("".join(output))
    assert ended == {"one": (0, b"it\n"), "two": (7, b""), "odd": (0, b"no end \xff")}
    assert process.returncode == 0 and not [*(tmp_path / "tmp").iterdir()]


def test_end_of_a_long_output_is_enough(tmp_path: Path) -> None:
    """Reading one line of 32 MB from an SSH channel took paramiko 80 s, in which all hosts wait."""
    with shell(tmp_path, one="yes | head -c 30000000; echo why; exit 1") as process:
        assert process.stdin and process.stdout
        print("one", file=process.stdin, flush=True)
        *_, output = process.stdout.readline().split()
    assert len(output) < 1_000_000 and base64.b64decode(output).endswith(b"y\nwhy\n")


@pytest.mark.parametrize(
    ("harm", "status", "said"),
    [
        ('rm -rf "$TMPDIR"', "0", ""),  # as on a disk that is full
        ("kill -KILL $PPID", "1", "the build was killed\n"),
    ],
)
def test_build_that_cannot_report_its_end_is_not_waited_for(
    tmp_path: Path, harm: str, status: str, said: str
) -> None:
    with shell(tmp_path, one=harm) as process:
        assert process.stdin and process.stdout
        print("one", file=process.stdin, flush=True)
        assert select.select([process.stdout], [], [], 20)[0], "it says nothing"
        word, name, found, _, *output = process.stdout.readline().split()
    assert (word, name, found) == ("ended", "one", status)
    assert base64.b64decode("".join(output)).decode() == said


@pytest.mark.parametrize("end", ["input", "TERM", "INT", "HUP"])
def test_builds_end_with_the_shell(tmp_path: Path, end: str) -> None:
    mark = f"left-{tmp_path.name}-{end}"
    build = f"mktemp; touch {tmp_path}/begun; sh -c 'sleep 300; true' {mark}; touch {tmp_path}/done"
    with shell(tmp_path, one=build, done="true") as process:
        assert process.stdin and process.stdout
        print("done", file=process.stdin, flush=True)
        assert process.stdout.readline().startswith("ended done 0 ")
        print("one", file=process.stdin, flush=True)
        until(lambda: (tmp_path / "begun").exists() and _running(mark))
        if end == "input":
            process.stdin.close()
        else:
            process.send_signal(signal.Signals[f"SIG{end}"])
        assert process.wait(10) == 0
    assert not _running(mark) and not (tmp_path / "done").exists()
    assert not [*(tmp_path / "tmp").iterdir()]


def test_script_of_a_build_has_all_its_steps(tmp_path: Path) -> None:
    """Each step gets its own context, in order, as the builder would unpack it."""
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\n[ "$1" = buildx ] || exit 0\nfor context; do :; done\n'
        f'cat "$context/Dockerfile" >>{tmp_path}/built\nls "$context" >>{tmp_path}/listed\n'
    )
    docker.chmod(0o755)
    top = File("Dockerfile", "FROM base\nCOPY large /\n")
    large = File("large", "it's $HOME `id` CONTEXT\n" * 20_000)
    service = replace(ONE, models=(MODEL,), context=(top, large))
    file = whole_build(service, service.stages, "/opt/llmhost/uploads")
    assert (file.path, file.mode) == ("/opt/llmhost/uploads/one.build", "0600")
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["sh"], input=file.data, check=True, env={"PATH": path})
    built = (tmp_path / "built").read_text().splitlines()
    assert [line for line in built if line.startswith("FROM")] == [
        f"FROM {service.engine} AS engine",
        f"FROM {MODEL.reference}",
        f"FROM {service.stages[0].reference} AS base",
        "FROM base",
    ]
    assert (tmp_path / "listed").read_text().split() == ["Dockerfile", "Dockerfile", "large"]


DOCKER = """\
#!/bin/sh
# A double of docker, without images. A build does what the file of its service says.
case "$*" in
  "info "*) echo "/|"; exit ;;
  "buildx build "*) ;;
  *) exit 0 ;;
esac
for word; do case $word in llmhost/*:*) name=${word#llmhost/}; name=${name%%:*} ;; esac; done
echo "begun $name" >>"$PLACE/log"
. "$PLACE/$name.does"
echo "ended $name" >>"$PLACE/log"
"""

_DEPLOY = """
from llmhost.docker.image import ServiceImage
from llmhost.operations import images
from llmhost.system.files import File

engines = {engines!r}
images.built(
    *(
        ServiceImage(name, "registry/" + engine + "@sha256:" + "0" * 64, (), (
            File("Dockerfile", "FROM engine\\n"),
        ))
        for name, engine in engines.items()
    ),
    uploads="{place}/uploads",
    check_room=False,
    name="Bake",
)
"""


@contextmanager
def deploying(
    place: Path, engines: dict[str, str], *options: str, **does: str
) -> Iterator["subprocess.Popen[str]"]:
    """A deploy of these services, each with its engine. What a build does is in `does`."""
    (place / "docker").write_text(DOCKER)
    (place / "docker").chmod(0o755)
    for name in engines:
        (place / f"{name}.does").write_text(does.get(name, ""))
    (place / "deploy.py").write_text(_DEPLOY.format(engines=engines, place=place))
    command = [sys.executable, "-m", "pyinfra", "@local", str(place / "deploy.py"), *options]
    environment = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}", "PLACE": str(place)}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process


def deploy(place: Path, engines: dict[str, str], *options: str, **does: str) -> tuple[int, str]:
    with deploying(place, engines, *options, **does) as process:
        output, _ = process.communicate(timeout=120)
        return process.returncode, output


def log(place: Path) -> list[str]:
    path = place / "log"
    return path.read_text().splitlines() if path.exists() else []


several = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="one processor builds one after the other"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can prepare the uploads")
WAIT = (
    'n=0; until grep -q "begun {0}" "$PLACE/log";'
    " do sleep 0.1; [ $((n += 1)) -lt 200 ] || exit 3; done"
)


@needs_root
@several
@pytest.mark.usefixtures("own_machine")
def test_deploy_builds_two_images_at_the_same_time(tmp_path: Path) -> None:
    # Each build ends only after the other one has begun.
    does = {"one": WAIT.format("two"), "two": WAIT.format("one") + "; sleep 6"}
    code, output = deploy(tmp_path, {"one": "a", "two": "b"}, "-y", **does)
    assert code == 0, output
    assert {*log(tmp_path)[:2]} == {"begun one", "begun two"} and len(log(tmp_path)) == 4
    assert "building the image of two: done in " in output
    assert not (tmp_path / "uploads").exists()


@needs_root
@pytest.mark.usefixtures("own_machine")
def test_deploy_builds_images_of_one_engine_one_after_the_other(tmp_path: Path) -> None:
    code, output = deploy(tmp_path, {"one": "a", "two": "a"}, "-y", one="sleep 1")
    assert code == 0, output
    assert log(tmp_path) == ["begun one", "ended one", "begun two", "ended two"]


@needs_root
@several
@pytest.mark.usefixtures("own_machine")
def test_failed_build_is_named_and_the_others_end(tmp_path: Path) -> None:
    fails = WAIT.format("two") + "; echo 'no such instruction: FORM' >&2; exit 1"
    slow = WAIT.format("one") + "; sleep 3"
    engines = {"one": "a", "two": "b", "three": "a"}
    code, output = deploy(tmp_path, engines, "-y", one=fails, two=slow)
    assert code != 0
    assert "the image of one could not be built:" in output
    assert "no such instruction: FORM" in output
    assert "waiting for the builds that run: two" in output
    assert "Traceback" not in output
    assert log(tmp_path)[-1] == "ended two" and "begun three" not in log(tmp_path)


@needs_root
@pytest.mark.usefixtures("own_machine")
@pytest.mark.parametrize("ends", [["INT", "INT"], ["TERM"], ["KILL"]])
def test_interrupted_deploy_leaves_no_build_behind(tmp_path: Path, ends: list[str]) -> None:
    """At the first Ctrl-C, pyinfra waits for the operation; at the second it ends."""
    mark = f"left-{tmp_path.name}"
    does = f"sh -c 'sleep 300; true' {mark}"
    with deploying(tmp_path, {"one": "a"}, "-y", one=does) as process:
        until(lambda: _running(mark))
        for end in ends:
            process.send_signal(signal.Signals[f"SIG{end}"])
            time.sleep(1)
        until(lambda: not _running(mark))
        process.communicate(timeout=60)
    assert log(tmp_path) == ["begun one"]


@needs_root
@pytest.mark.usefixtures("own_machine")
def test_dry_run_builds_nothing_and_names_what_is_missing(tmp_path: Path) -> None:
    code, output = deploy(tmp_path, {"one": "a", "two": "b"}, "--dry")
    assert code == 0, output
    assert log(tmp_path) == [] and not (tmp_path / "uploads").exists()
