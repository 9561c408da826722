"""The revision is llmhost's own, however it was installed."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmhost import version

COMMIT = "12" * 20


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ann", "-c", "user.email=ann@site.example"]
    command = ["git", *identity, "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "A site")
    version._toolkit.cache_clear()
    monkeypatch.setattr(version, "CHECKOUT", tmp_path)
    yield tmp_path
    version._toolkit.cache_clear()


def test_checkout_has_its_commit(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert version.toolkit()["revision"] == commit
    assert version.toolkit()["modified"] is False


def test_changed_checkout_is_modified(repository: Path) -> None:
    (repository / "new").touch()
    assert version.toolkit()["modified"] is True


@pytest.mark.parametrize(
    ("origin", "revision"),
    [
        (None, None),
        ('{"url": "file:///llmhost.whl", "archive_info": {}}', None),
        (f'{{"url": "https://git.example", "vcs_info": {{"commit_id": "{COMMIT}"}}}}', COMMIT),
    ],
)
def test_installation_has_the_commit_that_it_was_made_from(
    repository: Path, monkeypatch: pytest.MonkeyPatch, origin: str | None, revision: str | None
) -> None:
    """Even in a virtual environment inside another repository, such as the site's own."""

    class Installed:
        def read_text(self, name: str) -> str | None:
            return origin if name == "direct_url.json" else None

    monkeypatch.setattr(version, "CHECKOUT", None)
    monkeypatch.setattr(version, "distribution", lambda _: Installed())
    monkeypatch.chdir(repository)
    assert version.toolkit()["revision"] == revision
    assert version.toolkit()["modified"] is False
