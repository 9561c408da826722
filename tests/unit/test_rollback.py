"""Which deploy is returned to, what is kept of one, and which images nothing needs any more."""

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import Inventory
from typer.testing import CliRunner

from llmhost.cli import rollback as cli
from llmhost.cli import session
from llmhost.cli.app import app
from llmhost.facts.kept_deploys import KeptDeploys
from llmhost.history.prune import prune_script, superfluous
from llmhost.history.rollback import (
    EARLIER,
    DeployPaths,
    Image,
    Kept,
    KeptState,
    chosen,
    keep_script,
    name_of,
    other_places,
    return_script,
    steps_to,
    valid_name,
)
from llmhost.history.run_record import Run
from llmhost.inventory.reader import read_settings

PLACES = DeployPaths(
    receipt="/var/lib/llmhost/receipt.json",
    stack="/opt/llmhost",
    project="llmhost",
    start_timeout_seconds=60,
    gateway="/etc/nginx/llmhost",
    certificate="tls.pem",
)
FILES = frozenset({"receipt.json", "opt/llmhost/compose.yaml", "etc/nginx/nginx.conf"})


def receipt(day: int, **images: str) -> str:
    """A receipt of that day; `images` are services with the ids of their images."""
    return json.dumps(
        {
            "time": f"2026-01-{day:02}T00:00:00Z",
            "toolkit": {"revision": "0123456789ab", "modified": True},
            "images": {f"llmhost/{name}:{id}": f"sha256:{id}" for name, id in images.items()},
        }
    )


def kept(day: int, **images: str) -> Kept:
    text = receipt(day, **images)
    return Kept(name_of(text), text, FILES, 8079)


def image(name: str, id: str, *layers: str, size: int = 0, in_use: bool = False) -> Image:
    return Image(f"sha256:{id}", (f"llmhost/{name}:{id}",), size, layers, in_use)


FOUND = KeptState(
    deploys=tuple(kept(day, ollama=f"{day}") for day in (1, 2, 3, 4)),
    present=receipt(4, ollama="4"),
    images=tuple(image("ollama", f"{day}", "w", f"{day}") for day in (1, 2, 3, 4)),
)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_steps_count_back_from_the_present_deploy(steps: int) -> None:
    found = chosen(FOUND, steps)
    assert isinstance(found, Kept) and found.time == f"2026-01-{4 - steps:02}T00:00:00Z"
    assert found.revision == "01234567+"


def test_after_a_return_steps_count_from_where_it_led() -> None:
    found = chosen(replace(FOUND, present=receipt(3, ollama="3")), 1)
    assert isinstance(found, Kept) and found.time == "2026-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("found", "steps", "told"),
    [
        (KeptState(), 1, "there is no receipt: no deploy has completed on this host yet"),
        (KeptState(present=receipt(1)), 1, "no earlier deploy is kept"),
        (FOUND, 4, "cannot go back 4 deploys: only 3 earlier deploys are kept; --list"),
        (replace(FOUND, images=FOUND.images[3:]), 1, "were removed or replaced: llmhost/ollama:3"),
        (
            replace(FOUND, images=(replace(FOUND.images[2], id="sha256:other"),)),
            1,
            "deploy its inventory (revision 01234567+) instead",
        ),
    ],
)
def test_reason_why_there_is_no_way_back(found: KeptState, steps: int, told: str) -> None:
    said = chosen(found, steps)
    assert isinstance(said, str) and told in said


def test_deploy_whose_files_lay_elsewhere_is_not_returned_to() -> None:
    assert not other_places(kept(1, ollama="1"), PLACES)
    assert other_places(kept(1, ollama="1"), replace(PLACES, stack="/srv/llmhost"))
    gateway_only = replace(kept(1), paths=frozenset({"receipt.json", "etc/nginx/nginx.conf"}))
    assert not other_places(gateway_only, replace(PLACES, stack="/srv/llmhost"))


def test_what_a_deploy_has_made_is_kept_for_root_alone_and_the_oldest_goes(tmp_path: Path) -> None:
    places = replace(
        PLACES,
        receipt=str(tmp_path / "lib/receipt.json"),
        stack=str(tmp_path / "opt"),
        gateway=str(tmp_path / "nginx/llmhost"),
    )
    for path in ("opt/services/ollama.yaml", "nginx/llmhost/keys.map", "nginx/nginx.conf"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "nginx/llmhost/keys.map").chmod(0o600)
    (tmp_path / "lib").mkdir()
    for day in range(1, EARLIER + 4):
        script = keep_script(receipt(day), places)
        subprocess.run(["sh", "-c", script], input=receipt(day), text=True, check=True)
    directory = Path(places.kept)
    names = sorted(path.name for path in directory.iterdir())
    assert names == [f"2026-01-0{day}T000000Z.tar" for day in range(3, EARLIER + 4)]
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    with tarfile.open(directory / names[-1]) as archive:
        modes = {member.name: member.mode for member in archive if member.isfile()}
        text = archive.extractfile("receipt.json")
        assert text and text.read().decode() == receipt(EARLIER + 3)
    inside = str(tmp_path).lstrip("/")
    assert modes[f"{inside}/nginx/llmhost/keys.map"] == 0o600
    assert f"{inside}/nginx/nginx.conf" in modes
    assert f"{inside}/opt/services/ollama.yaml" in modes


def test_scripts_are_what_a_shell_takes() -> None:
    for paths in (FILES, frozenset({"receipt.json", "etc/nginx/nginx.conf"})):
        script = return_script(replace(kept(1), paths=paths), FOUND, PLACES, "marker")
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
        assert ("config --quiet" in script) == ("opt/llmhost/compose.yaml" in paths)
        # The script of a deploy whose connection was lost may still change containers.
        changes = "mv -fT" if "opt/llmhost/compose.yaml" in paths else "docker compose"
        assert script.index("flock -w") < script.index(changes)


LINE = "    server 10.0.0.{0}:8443 max_fails=2 fail_timeout=10s{1};  # llm-{0}.example"


def pool_files(directory: Path, servers: str, drained: str) -> None:
    """What a gateway has on disk with these servers, each a number, of which some are drained."""
    lines = [LINE.format(each, " down" if each in drained else "") for each in servers]
    alone = ["upstream brain {", "    server 127.0.0.1:1 down;", lines[0], "}"]
    text = "\n".join(["upstream llmhost_servers {", *lines, "}", *alone, ""])
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        path.unlink()
    for each in drained:
        (directory / f"llm-{each}.example.drained").write_text(f"drained {each}")
    (directory / "upstreams.conf").write_text(text)
    (directory / "status.conf").write_text(f'return 200 "{"0" * 64}";\n')
    (directory / "keys.map").write_text("")
    (directory.parent / "nginx.conf").write_text("")


def returned_pool(tmp_path: Path, kept_pool: tuple[str, str], now: tuple[str, str]) -> str:
    """Keep a gateway with this pool, change it to another one, and return it; what it says."""
    places = replace(
        PLACES,
        receipt=str(tmp_path / "lib/receipt.json"),
        stack=str(tmp_path / "opt"),
        gateway=str(tmp_path / "nginx/llmhost"),
    )
    directory = Path(places.gateway)
    pool_files(directory, *kept_pool)
    shell = {"input": receipt(1), "text": True, "capture_output": True}
    subprocess.run(["sh", "-c", keep_script(receipt(1), places)], check=True, **shell)  # type: ignore[call-overload]
    pool_files(directory, *now)
    # Nothing of nginx runs here: the script fails when all files are in their places.
    for name in ("nginx", "systemctl", "curl", "sleep"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    script = return_script(replace(kept(1), paths=frozenset({"x"})), FOUND, places, "marker")
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    ran = subprocess.run(["sh", "-c", script], env=environment, text=True, capture_output=True)
    return ran.stderr


@pytest.mark.parametrize(
    ("before", "now", "after"),
    [
        (("12", ""), ("12", "1"), "1"),  # drained since then, as one that a roll left
        (("12", "1"), ("12", ""), ""),  # drained then, and not now
        (("12", "1"), ("12", "2"), "2"),
        (("12", ""), ("123", "3"), ""),  # a server that the earlier deploy did not have
    ],
)
def test_drained_servers_of_a_gateway_stay_drained_and_no_others(
    before: tuple[str, str], now: tuple[str, str], after: str, tmp_path: Path
) -> None:
    said = returned_pool(tmp_path, before, now)
    assert "nginx did not load" in said
    directory = tmp_path / "nginx/llmhost"
    marks = {path.name: path.read_text() for path in directory.glob("*.drained")}
    assert marks == {f"llm-{each}.example.drained": f"drained {each}" for each in after}
    lines = (directory / "upstreams.conf").read_text().splitlines()
    servers = [LINE.format(each, " down" if each in after else "") for each in before[0]]
    assert lines[1:3] == servers and lines[5:7] == ["    server 127.0.0.1:1 down;", servers[0]]


def test_gateway_is_not_returned_to_a_pool_without_a_server(tmp_path: Path) -> None:
    said = returned_pool(tmp_path, ("12", ""), ("123", "12"))
    assert "all servers of that deploy are drained" in said
    assert "llm-3" in (tmp_path / "nginx/llmhost/upstreams.conf").read_text()


def test_each_return_has_a_digest_of_its_own() -> None:
    scripts = {return_script(kept(1), FOUND, PLACES, marker) for marker in ("one", "other")}
    assert len(scripts) == 2


def test_host_is_read_in_one_go() -> None:
    output = [
        "deploy|2026-01-01T000000Z|8079|e30=|receipt.json opt/llmhost/ opt/llmhost/compose.yaml ",
        "deploy|$(reboot)|||",
        "present|e30=",
        "image|sha256:1|100|llmhost/ollama:1 mine:1 |sha256:a sha256:b |llmhost/ollama@sha256:9 ",
        "image|sha256:2|100||sha256:c |",
        "image|sha256:3|9|llmhost/engine-chroma:1 |sha256:d |chroma@sha256:1 ",
        "used|sha256:2",
        "upload|weights.part",
    ]
    found = KeptDeploys().process(output)
    [deploy] = found.deploys
    assert deploy.name == "2026-01-01T000000Z" and deploy.status_port == 8079
    assert "opt/llmhost" in deploy.paths and found.present == "{}"
    assert found.images == (
        Image("sha256:1", ("llmhost/ollama:1", "mine:1"), 100, ("sha256:a", "sha256:b")),
        Image("sha256:2", (), 100, ("sha256:c",), in_use=True),
        Image(
            "sha256:3", ("llmhost/engine-chroma:1",), 9, ("sha256:d",), False, ("chroma@sha256:1",)
        ),
    )
    assert found.uploads == ("weights.part",)
    command = KeptDeploys().command("/r/receipt.json", "/etc/nginx/llmhost/status.conf", "/r/up")
    subprocess.run(["sh", "-n"], input=command, text=True, check=True)


@pytest.mark.parametrize("name", ["", "a b", "../a", "a;b", "a.b", "é"])
def test_names_that_a_shell_could_misread_are_not_taken(name: str) -> None:
    assert not valid_name(name)


def test_image_that_neither_deploy_nor_container_nor_inventory_needs_is_superfluous() -> None:
    found = replace(
        FOUND,
        images=(
            *FOUND.images,
            image("ollama", "0", "w", "old", size=30),
            image("ollama", "run", "w", "r", in_use=True),
            image("ollama", "next", "w", "n"),
        ),
    )
    assert superfluous(found, ["llmhost/ollama:next"]).references == ("llmhost/ollama:0",)
    assert superfluous(replace(found, present=""), ["llmhost/ollama:next"]).images


def test_present_deploy_counts_though_nothing_is_kept_of_it() -> None:
    found = replace(FOUND, deploys=())
    assert "llmhost/ollama:4" not in superfluous(found, []).references


def test_weights_stay_as_long_as_an_image_begins_with_them() -> None:
    weights, old = image("model-a", "a", "w", size=100), image("model-b", "b", "v", size=70)
    found = replace(FOUND, images=(*FOUND.images, weights, old))
    todo = superfluous(found, [])
    assert todo.references == ("llmhost/model-b:b",) and todo.freed_bytes == 70


def test_shared_layers_are_counted_once_and_only_if_the_last_goes() -> None:
    images = (
        image("model-a", "a", "w", size=100),
        image("ollama", "1", "w", "x", size=130),
        image("ollama", "2", "w", "y", size=120),
    )
    assert superfluous(KeptState(images=images), []).freed_bytes == 100 + 30 + 20
    todo = superfluous(KeptState(images=images), ["llmhost/ollama:2"])
    assert todo.references == ("llmhost/ollama:1",) and todo.freed_bytes == 30


def test_what_somebody_else_named_is_left_alone() -> None:
    theirs = Image("sha256:9", ("site/own:1",), 50, ("w", "z"))
    both = Image("sha256:8", ("llmhost/ollama:8", "site/kept:1"), 40, ("w", "q"))
    todo = superfluous(KeptState(images=(theirs, both)), [])
    assert todo.references == ("llmhost/ollama:8",) and todo.freed_bytes == 0
    script = prune_script(todo, "/var/lib/llmhost/uploads")
    assert "site/" not in script and "uploads" not in script and "rm --force" not in script


def test_engine_goes_with_the_last_image_that_begins_with_it() -> None:
    pulled = ("registry/chroma@sha256:1",)
    engine = replace(image("engine-chroma", "1", "e", size=90), pulled_as=pulled)
    service = image("chroma", "a", "e", "s", size=95)
    assert superfluous(KeptState(images=(engine, service)), ["llmhost/chroma:a"]).images == ()
    todo = superfluous(KeptState(images=(engine, service)), ["llmhost/chroma:b"])
    names = ("registry/chroma@sha256:1", "llmhost/engine-chroma:1", "llmhost/chroma:a")
    assert todo.references == names and todo.freed_bytes == 95
    theirs = replace(engine, references=(*engine.references, "chroma:latest"))
    assert superfluous(KeptState(images=(theirs,)), []).references == ("llmhost/engine-chroma:1",)


def test_upload_of_an_interrupted_run_is_freed() -> None:
    todo = superfluous(KeptState(uploads=("ab.part",)), [])
    assert "rm -rf /var/lib/llmhost/uploads" in prune_script(todo, "/var/lib/llmhost/uploads")


def test_way_to_an_engine_is_the_newest_deploy_that_ran_it() -> None:
    engines = {1: "a", 2: "b", 3: "b", 4: "c"}
    images = tuple(image("vllm", id) for id in "bc")
    found = KeptState(
        deploys=tuple(kept(day, vllm=id) for day, id in engines.items()),
        present=receipt(4, vllm="c"),
        images=images,
    )
    assert [steps_to([f"llmhost/vllm:{id}"], found) for id in "cb"] == [0, 1]
    assert steps_to([], found) == 0
    assert "were removed or replaced: llmhost/vllm:a" in str(steps_to(["llmhost/vllm:a"], found))
    assert steps_to(["llmhost/vllm:x"], found) == "no kept deploy uses llmhost/vllm:x"


def test_unfinished_deploy_leads_back_to_the_last_complete_one() -> None:
    """A deploy that failed has no receipt: the one before it is the current one."""
    found = replace(FOUND, unfinished=True)
    assert [each.time[:10] for each in found.earlier][:2] == ["2026-01-04", "2026-01-03"]
    assert chosen(found, 1) == FOUND.deploys[-1] and chosen(FOUND, 1) == FOUND.deploys[-2]
    assert steps_to(["llmhost/ollama:4"], found) == 1
    assert steps_to(["llmhost/ollama:4"], FOUND) == 0
    assert steps_to(["llmhost/ollama:3"], found) == 2


def history_line(number: int, result: str, *changed: str) -> str:
    return Run(f"{number}", "ann", "now", "0.2", None, False, 1, result, changed).line  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("runs", "unfinished"),
    [
        ([], False),
        ([("done", "Stack | Run the declared services")], False),
        ([("failed", "Stack | Run the declared services")], True),
        ([("cut off", "Gateway | Configure nginx")], True),
        ([("failed", "Docker | Install Docker")], False),
        ([("failed", "Stack | Run"), ("done", "Stack | Run")], False),
        ([("failed", "Stack | Run"), ("done", "Drain llm-1"), ("done", "System | Set")], True),
        ([("failed", "Stack | Run"), ("done", "Roll back to the deploy of 2026")], False),
        ([("done", "Stack | Run"), ("cut off", "Roll back to the deploy of 2026")], True),
    ],
)
def test_last_run_that_changed_the_stack_decides(
    runs: list[tuple[str, str]], unfinished: bool, tmp_path: Path
) -> None:
    lines = [history_line(number, *run) for number, run in enumerate(runs)]
    (tmp_path / "history.jsonl").write_text("".join(f"{line}\n" for line in lines))
    command = KeptDeploys().command(f"{tmp_path}/receipt.json", "/status.conf", f"{tmp_path}/up")
    read = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert KeptDeploys().process(read.stdout.splitlines()).unfinished is unfinished


def test_way_back_leads_to_the_same_group() -> None:
    """One image, and another secret, port or list of members: it would wait for the others."""

    def of_group(day: int, group: str) -> Kept:
        found = kept(day, vllm="a")
        return replace(found, receipt=json.dumps(found.record | {"engine_group": group}))

    deploys = tuple(of_group(day, group) for day, group in ((1, "old"), (2, "old"), (3, "new")))
    found = KeptState(deploys, deploys[-1].receipt, (image("vllm", "a"),))
    engine = ["llmhost/vllm:a"]
    assert [steps_to(engine, found, group) for group in ("new", "old", None)] == [0, 1, 0]
    assert steps_to(engine, found, "other") == (
        "no kept deploy uses llmhost/vllm:a with the same options of the group"
    )


@dataclass(frozen=True)
class HostOf:
    """As much of pyinfra's host as counts."""

    name: str


GROUP: dict[str, Any] = {
    "services": ["vllm"],
    "models": [
        {
            "name": "brain",
            "service": "vllm",
            "source": "hf:example/brain",
            "revision": "ab" * 20,
            "files": [{"path": "model.safetensors", "sha256": "1" * 64}],
            "vram_gib": 1,
        }
    ],
    "vllm_gpu": [0],
    "api_clients": [{"name": "app", "sha256": "ab" * 32}],
    "engine_group_members": {"one": "10.9.0.1", "two": "10.9.0.2", "six": "10.9.0.6"},
    "engine_group_head": "one",
    "engine_group_interface": "eth1",
    "engine_group_token": "env:LLMHOST_TEST_GROUP",
}


def test_members_of_a_group_return_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member with another engine than the others' would wait for them, and they for it."""
    monkeypatch.setenv("LLMHOST_TEST_GROUP", "g" * 32)
    hosts: list[tuple[str, dict[str, object]]] = [
        (name, {}) for name in GROUP["engine_group_members"]
    ]
    inventory = Inventory((hosts, GROUP))  # type: ignore[no-untyped-call]
    monkeypatch.setattr(session, "load_inventory", lambda _: inventory)
    both = tuple(image("vllm", id) for id in "ab")
    old, new = kept(1, vllm="a"), kept(3, vllm="b")
    states = {
        "one": KeptState((old, kept(2, vllm="a"), new), new.receipt, both),
        "two": KeptState((old, new), new.receipt, both),
        "six": KeptState((old,), old.receipt, both),  # its deploy failed: it has the old one
    }
    calls: dict[str, object] = {}

    @contextmanager
    def sessions(_: str, names: Sequence[str]) -> Iterator[list[cli._Session]]:
        hosts: Any = [HostOf(name) for name in names]
        state: Any = None
        yield [cli._Session(state, each, read_settings(GROUP, name=each.name)) for each in hosts]

    def run_locked(_: object, found: Any) -> dict[str, list[str]]:
        calls.update({host.name: call.arguments for host, call in found.items()})
        return {}

    monkeypatch.setattr(cli, "_sessions", sessions)
    monkeypatch.setattr(cli, "run_locked", run_locked)
    monkeypatch.setattr(cli._Session, "kept", lambda self: states[self.host.name])
    result = CliRunner().invoke(app, ["rollback", "site.py", "on?"])
    assert result.exit_code == 0, result.output
    assert calls == {"one": (1,), "two": (1,)}
    assert result.output.count("stack and gateway are back at") == 2
    states["two"] = replace(states["two"], deploys=(new,))
    calls.clear()
    result = CliRunner().invoke(app, ["rollback", "site.py", "one"])
    assert result.exit_code == 1 and calls == {}
    assert "two: no kept deploy uses llmhost/vllm:a, and members of an" in result.stderr
