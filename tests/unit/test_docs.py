"""Every command of the documentation: it parses, it is run here if that is cheap, and if not it is
known which test runs it. Every link leads somewhere, and every message that is explained exists."""

import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from llmhost.cli.app import app
from llmhost.inventory.reader import read_settings
from testbed import demo, try_inventory

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]
LINKING += sorted((ROOT / "docs").glob("*/*.md"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What runs a command that is too dear for here: the beginning of the command, and a test's name.
DEMO, TRIAL, HERE = "integration/test_demo.py", "integration/test_trial.py", "unit/test_docs.py"
ROLLBACK = "integration/test_rollback.py"
BACKUP = "integration/test_backup_site.py"
GPU_SERVER = "integration/test_gpu_server.py"
STOPPED = "test_service_that_an_operator_stopped_stays_so_until_it_is_started"
LIFETIME = "testbed/test_lan_lifetime.py"
RUN_BY = {
    "llmhost init": "integration/test_package.py::"
    "test_site_is_made_and_planned_up_to_the_connection",
    "llmhost plan": f"{DEMO}::test_plan_of_a_converged_host_exits_with_0",
    "llmhost verify": f"{DEMO}::test_server_passes_its_tests_before_and_after_a_reboot",
    "llmhost history": f"{DEMO}::test_history_tells_what_the_last_run_did",
    "llmhost unlock": f"{DEMO}::test_host_that_a_hanging_run_has_locked_can_be_unlocked",
    "llmhost status": f"{DEMO}::test_status_shows_the_engine_its_requests_and_the_last_deploy",
    "llmhost logs": f"{DEMO}::test_logs_show_requests_and_the_engine_without_keys",
    "llmhost ssh": f"{DEMO}::test_commands_run_on_the_host_and_in_a_container",
    "llmhost exec": f"{DEMO}::test_commands_run_on_the_host_and_in_a_container",
    "llmhost doctor": "unit/test_doctor.py::test_site_that_lacks_nothing_exits_with_0",
    "llmhost bench": "integration/test_bench.py::"
    "test_tokens_are_the_engine_s_own_and_two_runs_are_compared",
    "llmhost backup": f"{BACKUP}::test_lost_data_is_restored",
    "llmhost restore": f"{BACKUP}::test_lost_data_is_restored",
    "llmhost usage": f"{DEMO}::test_usage_counts_the_requests_of_each_client",
    "llmhost sbom": f"{DEMO}::test_sbom_lists_the_packages_of_the_host_its_image_and_its_model",
    "llmhost outdated": "integration/test_outdated.py::"
    "test_newer_versions_are_found_with_what_they_change",
    "llmhost page": f"{DEMO}::test_page_shows_the_site_and_exits_as_its_worst_part",
    "llmhost gpus": "integration/test_monitoring.py::"
    "test_gpus_over_time_come_from_the_monitoring_server",
    "llmhost rollback": f"{ROLLBACK}::test_stack_and_gateway_return_to_the_deploy_before",
    "llmhost prune": f"{ROLLBACK}::test_prune_shows_first_and_frees_only_what_is_ours",
    "llmhost stop": f"{GPU_SERVER}::{STOPPED}",
    "llmhost start": f"{GPU_SERVER}::{STOPPED}",
    "llmhost roll": "integration/test_roll.py::test_preview_shows_the_batches_and_changes_nothing",
    "llmhost restart": f"{GPU_SERVER}::{STOPPED}",
    "llmhost vram": "unit/test_cli_vram.py::test_plan_that_fits_is_shown_with_status_0",
    "llmhost bundle create": "integration/test_airgap.py::"
    "test_bundle_holds_all_that_a_deploy_would_fetch",
    "llmhost bundle apply": "integration/test_airgap.py::"
    "test_server_comes_up_from_the_bundle_alone",
    "llmhost key new": f"{HERE}::test_cheap_commands_do_what_the_page_says",
    "llmhost key rotate": f"{HERE}::test_cheap_commands_do_what_the_page_says",
    "llmhost key revoke": f"{HERE}::test_cheap_commands_do_what_the_page_says",
    "llmhost key list": f"{DEMO}::test_last_use_of_a_key_is_that_of_its_last_request",
    "llmhost key import": "unit/test_key_use.py::test_clients_of_a_csv_file_are_added_with_keys",
    "llmhost tls": f"{HERE}::test_cheap_commands_do_what_the_page_says",
    "llmhost docs": f"{HERE}::test_cheap_commands_do_what_the_page_says",
    "pyinfra": f"{DEMO}::test_second_run_changes_nothing",
    "python -m testbed": f"{LIFETIME}::test_what_a_killed_owner_left_is_collected",
    "script/bench": f"{HERE}::test_command_parses",
    "script/demo": f"{DEMO}::test_demo_started_again_uses_the_same_machine_and_key",
    "script/test": "unit/test_ci.py::test_lanes_of_the_workflow_are_lanes_of_the_script",
    "script/try": f"{TRIAL}::test_settings_that_hold_are_proven_and_leave_nothing_behind",
}
# Programs that are not ours: what they do is theirs to test.
OTHERS = {
    "openssl",
    "python3",
    ".",
    "cp",
    "git",
    "curl",
    "read",
    "export",
    "cd",
    "apt-get",
    "pip",
    "tar",
}


@dataclass(frozen=True)
class Command:
    """One command of a page: its words, without what only says where the program is."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"

    def begins_with(self, text: str) -> bool:
        wanted = tuple(text.split())
        joined = " ".join(self.words)
        return self.words[: len(wanted)] == wanted or joined.startswith(f"{text}.")


def commands() -> Iterator[Command]:
    """All commands of all `sh` blocks."""
    for page in PAGES:
        for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
            for line in block.splitlines() if language == "sh" else ():
                for part in line.split(" && "):
                    words = shlex.split(part, comments=True)
                    if words:
                        yield Command(page.name, tuple(_plain(words)))


def _plain(words: list[str]) -> list[str]:
    """Without sudo, the folder of the virtual environment, and a redirection."""
    if words[0] == "sudo":
        words = words[1:]
    if ">" in words:
        words = words[: words.index(">")]
    return [words[0].removeprefix(".venv/bin/"), *words[1:]]


COMMANDS = [*dict.fromkeys(commands())]
OURS = [each for each in COMMANDS if each.words[0] not in OTHERS]


def test_pages_show_commands() -> None:
    assert len(OURS) > 40
    assert {"README.md", "quick-start.md", "operations.md", "ci.md"} <= {each.page for each in OURS}


@pytest.mark.parametrize("command", OURS, ids=str)
def test_command_parses(command: Command) -> None:
    program, *arguments = command.words
    if program.startswith("script/"):
        assert os.access(ROOT / program, os.X_OK)
        _parse_script(program, arguments)
    elif program == "python" and arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]), arguments[1]
    elif program == "pyinfra":
        assert {each for each in arguments if each.startswith("-")} <= _options_of_pyinfra()
        assert arguments[1] == "deploy.py"
    else:
        assert program == "llmhost", f"{program}: not ours, and not among OTHERS"
        _parse(typer.main.get_command(app), arguments)


def _parse_script(program: str, arguments: list[str]) -> None:
    if program in ("script/try", "script/demo"):
        single = typer.Typer(add_completion=False)
        single.command()(try_inventory.trial if program == "script/try" else demo.demo)
        _parse(typer.main.get_command(single), arguments)
    elif program == "script/test":
        script = (ROOT / program).read_text()
        lanes = re.findall(r"^#   script/test ([a-z]+|--) ", script, re.MULTILINE)
        assert not arguments or arguments[0] in lanes
        assert all((ROOT / each).exists() for each in arguments if each.startswith("tests/"))
    elif program == "script/bench" and arguments:
        assert importlib.util.find_spec(f"benchmarks.{arguments[0]}")


def _parse(command: Any, arguments: list[str]) -> None:
    """As the program itself would, without doing anything; raises where it would refuse."""
    while hasattr(command, "commands"):
        name, *arguments = arguments
        command = command.commands[name]
    command.make_context(command.name or "", arguments)


@pytest.mark.parametrize("mistake", ["llmhost plan", "llmhost paln x.py", "llmhost plan x.py --al"])
def test_mistake_in_a_page_would_be_found(mistake: str) -> None:
    with pytest.raises(Exception, match=r"Missing parameter|paln|No such option"):
        test_command_parses(Command("page.md", tuple(mistake.split())))


@cache
def _options_of_pyinfra() -> set[str]:
    program = Path(sys.executable).with_name("pyinfra")
    told = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(?<!\w)--?[a-z][\w-]*", told))


@pytest.mark.parametrize("command", OURS, ids=str)
def test_it_is_known_which_test_runs_a_command(command: Command) -> None:
    (test,) = {test for begin, test in RUN_BY.items() if command.begins_with(begin)}
    file, name = test.split("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_cheap_commands_do_what_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "inventory").mkdir()
    sample = (ROOT / "inventory" / "llm.py").read_text()
    (tmp_path / "inventory" / "site.py").write_text(sample)
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    keys = tuple(f"llmhost key {verb}" for verb in ("new", "rotate", "revoke"))
    cheap = ("llmhost docs", *keys, "llmhost tls", "python -m testbed list")
    ran = [each for each in OURS if any(each.begins_with(begin) for begin in cheap)]
    assert len(ran) > 5
    for command in {each.words: each for each in ran}.values():
        words = [str(Path(sys.executable).with_name(command.words[0])), *command.words[1:]]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    site = (tmp_path / "inventory" / "site.py").read_text()
    assert '"revoked": True' in site and '"previous_sha256"' in site


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file) if file else page
        assert place.exists(), target
        if anchor:
            text = place.read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            words = (re.sub(r"[^\w -]", "", each).strip().lower() for each in headings)
            slugs = {each.replace(" ", "-") for each in words}
            assert anchor in slugs, target


def test_every_page_is_reachable_from_the_readme() -> None:
    linked = re.findall(r"\]\(docs/([\w-]+\.md)\)", (ROOT / "README.md").read_text())
    entries = {"README.md", "index.md"}  # of the repository, and of the site
    assert {page.name for page in PAGES} - entries == set(linked)


def test_messages_that_are_explained_are_those_of_the_code() -> None:
    source = "".join(_texts(path) for path in sorted((ROOT / "llmhost").rglob("*.py")))
    source += "".join(_texts(path) for path in (ROOT / "tests" / "server").glob("*.py"))
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    ours = page.partition("## What clients see")[0]
    messages = re.findall(r"^\| `([^`]+)` \| ", ours, re.MULTILINE)
    assert len(messages) > 30
    for message in messages:
        for part in filter(None, (each.strip(" :;,.'?") for each in message.split("…"))):
            assert part in source, message


def _texts(path: Path) -> str:
    """All string constants of a module, those of f-strings too, with adjacent ones joined."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (each.value for each in node.values if isinstance(each, ast.Constant))
            told.append("\x00".join(str(part) for part in parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            told.append(node.value)
    return "\n".join(told)


def _example(page: str, marker: str) -> str:
    """The `python` block of a page that holds this text."""
    blocks = FENCE.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    (found,) = [text for language, text in blocks if language == "python" and marker in text]
    return str(found)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a filled-in copy of the sample inventory."""
    (tmp_path / "inventory").mkdir()
    sample = (ROOT / "inventory" / "llm.py").read_text()
    filled = sample.replace('"0" * 40', '"a" * 40').replace('"0" * 64', '"b" * 64')
    (tmp_path / "inventory" / "site.py").write_text(filled)
    return tmp_path


def _hosts(site: Path, inventory: str) -> dict[str, dict[str, Any]]:
    """Merged data of every host, as pyinfra reads the inventory."""
    program = Path(sys.executable).with_name("pyinfra")
    command = [str(program), inventory, "debug-inventory", "--json"]
    told = subprocess.run(command, cwd=site, capture_output=True, text=True, check=True).stdout
    return {each["name"]: each["data"] for each in json.loads(told)}


def test_inventory_for_ci_takes_over_the_sites_settings(site: Path) -> None:
    (site / "inventory" / "ci.py").write_text(_example("ci.md", "run_path"))
    (real,) = _hosts(site, "inventory/site.py").values()
    small = _hosts(site, "inventory/ci.py")
    (model,) = small["ci"]["models"]
    model |= {"revision": "a" * 40, "sha256": "b" * 64}  # `llmhost model lock` writes them
    settings = read_settings(small["ci"])
    assert [each.name for each in settings.models] == ["small"]
    assert settings.firewall == read_settings(real).firewall


def test_inventory_for_a_laptop_is_valid(site: Path) -> None:
    (site / "inventory" / "laptop.py").write_text(_example("wsl2.md", "@local"))
    data = _hosts(site, "inventory/laptop.py")["@local"]
    (sample,) = _hosts(site, "inventory/site.py").values()
    rest = {key: sample[key] for key in ("services", "models", "api_clients")}
    settings = read_settings(data | rest)
    assert settings.gateway.url("localhost") == "https://localhost:8080"
