"""An installation without a checkout: the wheel in a fresh environment, a site, a server.

The tests run in the order of the file. Nothing is started from the checkout: every command is the
environment's own, in the site's directory, with no more environment than a login shell has.
"""

import json
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmhost.gateway.keys import digest
from testbed import Lan, tiny_model
from testbed.engine import push_engine
from testbed.image_registry import ImageRegistry

ROOT = Path(__file__).parents[2]
LINKED = {"tasks": "tasks", "templates": "templates", "files": "files", "checks": "tests/server"}
LINKED["pages"] = "docs"
"""Directories of the package that lie elsewhere in a checkout."""

NOT_PACKED = shutil.ignore_patterns(".git", ".venv", ".demo", ".*_cache", "build", "dist")
BUILD = """
import sys
from setuptools import build_meta
build_meta.build_sdist(sys.argv[1])
"""

Said = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Installation:
    """A virtual environment with llmhost, and the directory of a site."""

    environment: Path
    site: Path

    def run(self, program: str, *arguments: str, limit: float = 900, **more: str) -> Said:
        home = self.site.parent
        return subprocess.run(
            [self.environment / "bin" / program, *arguments],
            cwd=self.site if self.site.is_dir() else home,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
        )

    def python(self, code: str) -> str:
        """What Python prints, without the current directory and the user's packages on its path."""
        ran = self.run("python", "-I", "-c", code)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


def succeed(*command: object, cwd: Path) -> str:
    """What a command prints that has to succeed."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def init(installed: Installation, host: str, *options: str) -> Said:
    """A site with the profile `embeddings`, made where no hub can be reached."""
    answers = ["--host", host, "--profile", "embeddings", "--yes", *options]
    made = installed.run(
        "llmhost", "init", str(installed.site), *answers, HF_ENDPOINT="http://127.0.0.1:1"
    )
    assert made.returncode == 0, made.stderr
    return made


def edit(installed: Installation, old: str, new: str) -> None:
    """Change one place of the site's inventory."""
    inventory = installed.site / "inventory/site.py"
    text = inventory.read_text()
    assert text.count(old) == 1, text
    inventory.write_text(text.replace(old, new))


def use_tiny_model(installed: Installation, engine: str, **options: object) -> None:
    """In place of the profile: a tiny model from a file, and an engine of the LAN's registry."""
    weights = installed.site / "tiny.gguf"
    model = {"name": "tiny", "source": "tiny.gguf", "sha256": tiny_model.write(weights)}
    data = {
        "services": ["llamacpp"],
        "llamacpp_image": engine,
        "models": [{**model, "context_tokens": 512}],
        **options,
    }
    lines = "\n".join(f"        {key!r}: {value!r}," for key, value in data.items())
    edit(installed, '        "stack_profile": "embeddings",', lines)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a release is: a source distribution of the checkout, with what a run leaves in it,
    and a wheel of that."""
    place = tmp_path_factory.mktemp("build")
    shutil.copytree(ROOT, place / "llmhost", symlinks=True, ignore=NOT_PACKED)
    for cache in ("templates", "files/images/search_api/search_api", "tests/server", "tasks"):
        (place / "llmhost" / cache / "__pycache__").mkdir(exist_ok=True)
        (place / "llmhost" / cache / "__pycache__" / "left.cache").touch()
        (place / "llmhost" / cache / "__pycache__" / "left.cpython-311.pyc").touch()
    succeed(sys.executable, "-c", BUILD, place, cwd=place / "llmhost")
    (source,) = place.glob("llmhost-*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    succeed(*pip, source, cwd=place)
    (built,) = place.glob("llmhost-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    place = tmp_path_factory.mktemp("installation")
    environment = place / "environment"
    succeed(sys.executable, "-m", "venv", environment, cwd=place)
    pip = [environment / "bin/python", "-m", "pip", "install", "--quiet"]
    locked = ["--require-hashes", "--requirement", ROOT / "requirements.lock"]
    succeed(*pip, *locked, cwd=place)
    succeed(*pip, "--no-deps", wheel, cwd=place)
    return Installation(environment, place / "site")


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"llmhost"}
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []
    code = [name for name in names if not name.startswith("llmhost/pages/")]
    assert [name for name in code if "double" in name or "testbed" in name] == []


@pytest.mark.parametrize("directory", LINKED)
def test_wheel_holds_what_is_linked_into_the_package(wheel: Path, directory: str) -> None:
    tracked = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", LINKED[directory]]
    listed = succeed(*tracked, cwd=ROOT)
    archive = zipfile.ZipFile(wheel)
    for path in filter(None, listed.split("\0")):
        member = archive.getinfo(f"llmhost/{directory}{path.removeprefix(LINKED[directory])}")
        assert archive.read(member) == (ROOT / path).read_bytes()
        executable = bool((ROOT / path).stat().st_mode & 0o100)
        assert bool(member.external_attr >> 16 & 0o100) == executable, path


def test_installation_needs_nothing_else(installed: Installation) -> None:
    place = installed.python("import llmhost; print(llmhost.__file__)")
    assert place.startswith(str(installed.environment))
    checked = installed.run("python", "-m", "pip", "check")
    assert checked.returncode == 0, checked.stdout


HELP = """
from typer.testing import CliRunner
from typer.main import get_command
from llmhost.cli.app import app
for name in get_command(app).commands:
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0 and f"Usage: llmhost {name}" in shown.output, shown.output
    print(name)
"""


def test_every_command_explains_itself(installed: Installation) -> None:
    shown = installed.run("llmhost", "--help")
    assert shown.returncode == 0 and "Usage: llmhost" in shown.stdout, shown.stderr
    commands = set(installed.python(HELP).split())
    assert {"init", "plan", "deploy", "verify", "bundle", "key", "model", "vram"} <= commands


DIGESTS = """
from llmhost.docker.build_context import context_files
from llmhost.resources import FILES
for place in sorted((FILES / "images").iterdir()):
    print(place.name, [(file.path, file.mode, file.sha256) for file in context_files(place)])
"""


def test_images_are_the_same_as_from_a_checkout(installed: Installation) -> None:
    """Or hosts would build each image again after they are deployed from the other."""
    own = subprocess.run(
        [sys.executable, "-c", DIGESTS], check=True, capture_output=True, text=True
    )
    assert installed.python(DIGESTS) == own.stdout
    assert "search_api/main.py" in own.stdout


OWN_WHEEL = """
from pathlib import Path
from llmhost.bundle.wheel import own_wheel
Path({!r}).write_bytes(own_wheel()[1])
"""


def test_bundle_gets_the_wheel_that_was_installed(
    installed: Installation, wheel: Path, tmp_path: Path
) -> None:
    made = tmp_path / wheel.name
    installed.python(OWN_WHEEL.format(str(made)))
    contents = [
        {name: archive.read(name) for name in archive.namelist() if name.startswith("llmhost/")}
        for archive in (zipfile.ZipFile(wheel), zipfile.ZipFile(made))
    ]
    assert contents[0] == contents[1]
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", tmp_path / "t"]
    succeed(*pip, made, cwd=tmp_path)
    assert (tmp_path / "t/bin/llmhost").is_file()


def test_site_is_made_and_planned_up_to_the_connection(installed: Installation) -> None:
    made = init(installed, "127.0.0.1", "--allow", "127.0.0.0/8")
    try:
        edit(installed, '"ssh_user"', '"ssh_port": 1, "ssh_user"')
        added = installed.run("llmhost", "key", "new", "other", "inventory/site.py")
        assert added.returncode == 0, added.stderr
        text = (installed.site / "inventory/site.py").read_text()
        assert digest(made.stdout.strip()) in text and digest(added.stdout.strip()) in text
        for command in (["plan"], ["vram"], ["bundle", "create", "-o", "site.bundle"]):
            ran = installed.run("llmhost", *command, "inventory/site.py")
            assert ran.returncode == 1 and "llmhost model lock" in ran.stderr, ran.stderr
        use_tiny_model(installed, "example/engine@sha256:" + "0" * 64)
        for command in (["plan"], ["deploy"], ["verify", "--", "-k", "connection"]):
            ran = installed.run("llmhost", command[0], "inventory/site.py", *command[1:])
            said = ran.stdout + ran.stderr
            assert ran.returncode != 0 and "Traceback" not in said
            assert "the inventory has mistakes" not in said and "connect" in said.lower(), said
        listed = installed.run("llmhost", "model", "list", "inventory/site.py")
        assert listed.returncode == 0 and "tiny" in listed.stdout
    finally:
        shutil.rmtree(installed.site)


SERVER = "llm-server"


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with Lan.create("package") as lan:
        yield lan


@pytest.fixture(scope="module")
def site(installed: Installation, lan: Lan) -> Iterator[Installation]:
    """A site in a repository of its own, with an LLM server and an application server."""
    server, app = lan.machine(SERVER), lan.machine("app")
    home = installed.site.parent
    (home / ".ssh").mkdir()
    shutil.copy(lan.ssh_config, home / ".ssh/config")
    git = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@site.example"]
    succeed(*git, "init", "--quiet", cwd=home)
    succeed(*git, "commit", "--quiet", "--allow-empty", "-m", "A site", cwd=home)
    key = init(installed, server.address, "--allow", lan.subnet).stdout
    (home / "key").write_text(key)
    with ImageRegistry(lan.gateway, home / "registry") as registry:
        use_tiny_model(
            installed,
            push_engine(registry),
            docker_insecure_registries=[registry.name],
            preflight_min_memory_gib=1.0,
            preflight_min_free_disk_gib=3.0,
        )
        inventory = installed.site / "inventory/site.py"
        more = {"ssh_hostname": app.address, "app_server_api_key": f"file:{home / 'key'}"}
        inventory.write_text(f"{inventory.read_text()}\napp_servers = [('app', {more!r})]\n")
        yield installed


def changed(run: Said) -> list[str]:
    """Names of the operations that changed something on any host."""
    assert run.returncode == 0, run.stdout + run.stderr
    operations = json.loads(run.stdout)["results"]["operations"]
    assert len(operations) > 10
    return [operation["name"] for operation in operations if operation["success"]]


@pytest.mark.machines
def test_both_hosts_are_deployed_from_the_site(site: Installation) -> None:
    planned = site.run("llmhost", "plan", "inventory/site.py")
    assert planned.returncode == 2, planned.stdout + planned.stderr
    names = changed(site.run("pyinfra", "inventory/site.py", "deploy.py", "-y", "--json"))
    assert names
    assert [name for name in names if "deploy.py" in name or name.startswith("/")] == []


@pytest.mark.machines
def test_deploy_is_pyinfras_and_has_nothing_left_to_do(site: Installation) -> None:
    again = site.run("llmhost", "deploy", "inventory/site.py", "-y", "--json")
    assert changed(again) == [], again.stderr
    planned = site.run("llmhost", "plan", "inventory/site.py")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    dry = site.run("pyinfra", "inventory/site.py", "deploy.py", "--dry", "--json")
    plan = json.loads(dry.stdout)["plan"]
    assert len(plan) > 10 and not any(each["hosts_with_change"] for each in plan)


@pytest.mark.machines
def test_deploy_held_the_host_and_is_in_its_history(site: Installation) -> None:
    """With llmhost's version and, in a repository of somebody else's, not with its commit."""
    shown = site.run("llmhost", "history", "inventory/site.py", SERVER, "--json")
    assert shown.returncode == 0, shown.stderr
    (run,) = json.loads(shown.stdout)["runs"]
    assert run["result"] == "done" and run["version"] and run["revision"] is None


@pytest.mark.machines
def test_verify_runs_the_installed_checks(site: Installation, lan: Lan) -> None:
    (site.site / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    outside = shlex.join(lan.client().command([]))
    key = (site.site.parent / "key").read_text().strip()
    verified = site.run(
        *("llmhost", "verify", "inventory/site.py", "--outside", outside, "--", "-v"),
        LLMHOST_API_KEY=key,
        LLMHOST_CA=str(site.site.parent / ".config/llmhost/ca/ca.crt"),
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "test_gateway.py" in verified.stdout


@pytest.mark.airgap
@pytest.mark.machines
def test_bundle_holds_the_installed_llmhost(site: Installation, lan: Lan, wheel: Path) -> None:
    # The lane `airgap` has not deployed this machine.
    lan.machines[SERVER].ssh(
        "apt-get -q update && apt-get -q -y install --no-install-recommends gnupg"
    )
    options = ["--limit", "app", "--output", "app.bundle", "--builder", SERVER]
    made = site.run("llmhost", "bundle", "create", "inventory/site.py", *options)
    assert made.returncode == 0, made.stdout + made.stderr
    with tarfile.open(site.site / "app.bundle") as bundle:
        names = bundle.getnames()
    assert f"toolkit/{wheel.name}" in names and "toolkit/requirements.lock" in names
    assert any(name.startswith("wheels/pyinfra-") for name in names)
