"""The files that a repository and a package are judged by agree with each other."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FORMS = [
    form
    for form in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    if form.name != "config.yml"
]


def test_page_of_licences_is_up_to_date() -> None:
    run = subprocess.run([ROOT / "script" / "licences"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    page = (ROOT / "docs" / "licences.md").read_text()
    assert page == run.stdout, "stale; run script/docs"


def test_page_of_licences_names_every_declared_dependency() -> None:
    page = (ROOT / "docs" / "licences.md").read_text().partition("## The image")[0]
    listed = {name.lower().replace("_", "-") for name in re.findall(r"^\| (\S+)", page, re.M)}
    declared = {re.split(r"[^\w-]", each)[0] for each in PROJECT["dependencies"]}
    assert declared and declared <= listed


def test_license_of_the_package_is_that_of_the_repository() -> None:
    assert PROJECT["license"] == "Apache-2.0" and PROJECT["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_changelog_describes_the_version_of_the_package() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    released = [
        re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d", each) for each in headings[1:]
    ]
    versions = [found[1] for found in released if found]
    assert len(versions) == len(headings) - 1 and versions[0] == PROJECT["version"]
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    entries = re.findall(r"^- .*(?:\n  .*)*", text, re.MULTILINE)
    assert len(entries) == len(set(entries))


def test_supported_versions_begin_with_this_one() -> None:
    rows = re.findall(r"^\| (\d+\.\d+) \| (yes|no) \|$", (ROOT / "SECURITY.md").read_text(), re.M)
    assert rows[0] == (PROJECT["version"].rpartition(".")[0], "yes")


def test_hooks_run_locked_programs_and_download_nothing() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        program = hook["entry"].split()[0]
        assert hook["language"] == "system" and program.startswith(".venv/bin/")
        assert f"\n{Path(program).name}==" in (ROOT / "requirements-dev.lock").read_text()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_issue_form_has_what_github_demands(form: Path) -> None:
    """https://docs.github.com/communities/using-templates-to-encourage-useful-issues-and-pull-requests"""
    content = yaml.safe_load(form.read_text())
    assert content["name"] and content["description"]
    fields = [each for each in content["body"] if each["type"] != "markdown"]
    assert fields and all(each["attributes"]["label"] for each in fields)
    ids = [each["id"] for each in fields]
    assert len(ids) == len(set(ids))
