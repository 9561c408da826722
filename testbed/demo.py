"""`script/demo`: a machine that a real deploy provisions and `llmhost verify` checks."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from llmhost.gateway.keys import digest, new_key
from llmhost.gateway.routes import exposed_routes
from llmhost.inventory.profiles import PROFILES
from llmhost.inventory.reader import read_settings
from llmhost.settings import Settings
from testbed import Lan, Machine, MachineError, demo_model
from testbed.controller import install_requirements
from testbed.demo_chat import chat
from testbed.engine import engine_archive, push_engine
from testbed.image_registry import ImageRegistry
from testbed.profiles import profile_data
from testbed.stand_ins import DOUBLES
from testbed.wheels import PackageUnavailableError
from tests.doubles.apt_repository import serving
from tests.doubles.nvidia.engine import push_gpu_engine
from tests.doubles.nvidia.flavours import FLAVOURS, Flavour, build_site, dress, site_data

HOME = Path(os.environ.get("LLMHOST_DEMO", ".demo"))
"""Directory of the demo; inventory/demo.py reads it."""
LAN = HOME / "lan"
NAME = "llm-demo"
PORT = 8080
PACKAGES_PORT = 5001
"""Directory of packages for flavours with a GPU; the same in every run."""
_console = Console(highlight=False)


def demo(
    down: Annotated[
        bool, typer.Option("--down", help="Remove the demo and all its traces")
    ] = False,
    vm: Annotated[
        bool, typer.Option("--vm", help="A virtual machine instead of a container")
    ] = False,
    profile: Annotated[
        str | None, typer.Option("--profile", help=f"Start one of {', '.join(PROFILES)}")
    ] = None,
    flavour: Annotated[
        str | None, typer.Option(help=f"Simulated hardware: {', '.join(FLAVOURS)}")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="smollm2 (the default) answers; tiny is generated and babbles"),
    ] = None,
    talk: Annotated[bool, typer.Option("--chat", help="Talk to the running demo")] = False,
) -> None:
    """Create a local LLM server, or use the existing one, and show how to call it."""
    if os.geteuid() != 0:
        sys.exit("error: test machines need root; run: sudo script/demo")
    if profile is not None and profile not in PROFILES:
        sys.exit(f"error: there is no profile {profile}: there are {', '.join(PROFILES)}")
    if flavour not in (None, *FLAVOURS):
        sys.exit(f"error: there is no flavour {flavour}; there are: {', '.join(FLAVOURS)}")
    if model not in (None, *demo_model.NAMES):
        sys.exit(f"error: there is no model {model}; there are: {', '.join(demo_model.NAMES)}")
    if talk:
        _talk()
        return
    try:
        _remove() if down else _bring_up("vm" if vm else "nspawn", flavour, profile, model)
    except MachineError as error:
        sys.exit(f"error: {error}\nscript/demo --down removes what was created so far.")


def _talk() -> None:
    try:
        chat(HOME)
    except MachineError as error:
        sys.exit(f"error: {error}")


def _remove() -> None:
    if LAN.exists():
        Lan.open(LAN).destroy()
    shutil.rmtree(HOME, ignore_errors=True)
    _console.print("The demo is removed.")


def _bring_up(kind: str, wanted: str | None, profile: str | None, name: str | None) -> None:
    HOME.mkdir(mode=0o700, exist_ok=True)
    flavour = FLAVOURS[_flavour(wanted)]
    with _step("Machine, engine and model"), ThreadPoolExecutor() as pool:
        engine = pool.submit(engine_archive)
        fetched = pool.submit(_model, "tiny" if profile else _wanted_model(name))
        lan = _lan(kind, flavour.suite)
        engine.result()
        model = fetched.result()
    machine = lan.machines[NAME]
    _link_ssh_config(machine)
    url = f"http://{machine.address}:{PORT}"
    key = _key()
    _write_env(url, key)
    with (
        ImageRegistry(lan.gateway, HOME / "registry") as registry,
        _flavoured(flavour, machine, lan.gateway) as data,
    ):
        push = push_gpu_engine if flavour.has_gpu else push_engine
        stack = profile_data(profile, registry, HOME) if profile else {}
        _write_site(key, registry, push(registry), model, data, stack)
        with _step("Provisioning: pyinfra inventory/demo.py deploy.py -y"):
            _run("pyinfra", "inventory/demo.py", "deploy.py", "-y")
    with _step("Verifying: llmhost verify inventory/demo.py"):
        outside = shlex.join(lan.clients["client"].command([]))
        os.environ["LLMHOST_API_KEY"] = key
        _run("llmhost", "verify", "inventory/demo.py", "--outside", outside, "--", "-q")
    _tell(url, key, model["name"], profile)


def _flavour(wanted: str | None) -> str:
    """The flavour of the existing demo, or else the requested one."""
    path = HOME / "flavour"
    if not path.exists():
        path.write_text(wanted or "plain")
    found = path.read_text()
    if wanted not in (None, found):
        raise MachineError(f"the existing demo has the flavour {found}, not {wanted}")
    return found


@contextmanager
def _flavoured(flavour: Flavour, machine: Machine, gateway: str) -> Iterator[dict[str, object]]:
    """The machine with its flavour's hardware, and its inventory data."""
    if not flavour.has_gpu:
        yield {}
        return
    install_requirements(doubles=True)
    packages = HOME / "packages"
    fingerprints = build_site(packages)
    with serving(packages, gateway, PACKAGES_PORT) as url:
        if machine.ssh("test -e /etc/llmhost-double", check=False).returncode:
            dress(machine, flavour, packages, url)
        yield site_data(flavour, fingerprints, url)


def _lan(kind: str, suite: str | None) -> Lan:
    """The demo's LAN with its machine running; created if necessary."""
    if not LAN.exists():
        lan = Lan.create("demo", state=LAN, detached=True)
        lan.client("client")
        lan.machine(NAME, kind=kind, suite=suite)
        return lan
    lan = Lan.open(LAN)
    if NAME not in lan.machines:  # an earlier run ended before it was created
        lan.machine(NAME, kind=kind, suite=suite)
    lan.machines[NAME].start()
    return lan


def _link_ssh_config(machine: Machine) -> None:
    config = HOME / "ssh_config"
    config.unlink(missing_ok=True)
    config.symlink_to(machine.ssh_config.resolve())


def _key() -> str:
    """The demo's API key: the one of an earlier run, or a new one."""
    path = HOME / "env"
    lines = path.read_text().splitlines() if path.exists() else []
    known = [line.partition("=")[2] for line in lines if line.startswith("LLMHOST_API_KEY=")]
    return known[0] if known else new_key()


def _wanted_model(name: str | None) -> str:
    """The requested model, or else that of the existing demo."""
    path = HOME / "model"
    if name or not path.exists():
        path.write_text(name or demo_model.NAMES[0])
    return path.read_text()


def _model(name: str) -> demo_model.Data:
    """The declared model, or the generated one where it cannot be downloaded."""
    try:
        return demo_model.declared(name, HOME)
    except PackageUnavailableError as error:
        _console.print(f"[yellow]The demo will babble: its model is unavailable.[/yellow] {error}")
        return demo_model.declared("tiny", HOME)


def _write_site(
    key: str,
    registry: ImageRegistry,
    engine: str,
    model: demo_model.Data,
    data: dict[str, object],
    stack: dict[str, Any],
) -> None:
    site = {
        "registry": registry.name,
        "engine": engine,
        "model": model,
        "client_sha256": digest(key),
        "data": data,
        "stack": stack,
    }
    (HOME / "site.json").write_text(json.dumps(site, indent=2))


def _write_env(url: str, key: str) -> None:
    path = HOME / "env"
    path.touch(mode=0o600)
    path.write_text(f"LLMHOST_URL={url}\nLLMHOST_API_KEY={key}\n")


def _run(program: str, *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    result = subprocess.run(command)
    if result.returncode:
        raise MachineError(f"`{shlex.join(command)}` failed: see its output above")


@contextmanager
def _step(title: str) -> Iterator[None]:
    _console.print(f"[bold]--> {title}[/bold]")
    begun = time.monotonic()
    yield
    _console.print(f"    {time.monotonic() - begun:.1f} s")


def _tell(url: str, key: str, model: str, profile: str | None) -> None:
    if profile:
        _tell_profile(profile, url, key)
    else:
        _console.print(
            f"\nThe server answers at  {url}\nAPI key                {key}\n", soft_wrap=True
        )
        _console.print(
            "Stream tokens from it (the demo's model is tiny and babbles):\n"
            if model == "tiny"
            else "Ask it (SmolLM2 with 135 million parameters; do not trust what it says):\n"
        )
        print(demo_model.curl(model, url, key))
    _console.print(
        "\nTalk to it: script/demo --chat     Log in: ssh -F .demo/ssh_config llm-demo"
        "     Remove: script/demo --down",
        soft_wrap=True,
    )


def _tell_profile(profile: str, url: str, key: str) -> None:
    """The services, which of them are doubles, and their URLs."""
    site = json.loads((HOME / "site.json").read_text())["stack"]
    settings = read_settings({**site, "api_clients": [{"name": "demo", "sha256": digest(key)}]})
    _console.print(f"\nProfile {profile}:")
    for service in settings.services:
        _console.print(f"  {service}: {_nature(service, settings)}")
    for model in settings.models:
        _console.print(f"  model {model.name}: a small file instead of its weights")
    _console.print(
        f"\nThe gateway answers at  {url}\nAPI key                 {key}\n", soft_wrap=True
    )
    for route in exposed_routes(settings):
        _console.print(f"  {'|'.join(route.methods)} {url}{route.path}", soft_wrap=True)
    for service, ui in settings.uis.items():
        at = url.replace(f":{PORT}", f":{ui.ui_port}")
        _console.print(f"\n{service} answers at  {at}", soft_wrap=True)
        for variable, reference in settings.options(service).secret_variables.items():
            _console.print(f"  {variable} is in {reference.removeprefix('file:')}", soft_wrap=True)


def _nature(service: str, settings: Settings) -> str:
    if service in DOUBLES:
        return f"a double: {DOUBLES[service]}"
    apps = [app.name for app in settings.apps]
    return "an app instead of a site's own" if service in apps else "real"


if __name__ == "__main__":
    typer.run(demo)
