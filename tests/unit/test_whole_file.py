"""Files that a command writes on the controller, when the disk is full: the kernel refuses to write
more than a few bytes of a file (RLIMIT_FSIZE)."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llmhost.models.lock import write_lock
from llmhost.system.whole_file import write_file, write_private_file

SITE = """
from pathlib import Path
lock = str(Path(__file__).with_name("models.lock.json"))
hosts = ([("llm", {})], {"stack_models_lock": lock, "api_clients": []})
"""
OLD = write_lock({"hf:a/b": {"revision": "1" * 40}})


def run(
    place: Path, *words: str, most_bytes: int | None = None
) -> subprocess.CompletedProcess[str]:
    limit = ["prlimit", f"--fsize={most_bytes}"] if most_bytes is not None else []
    command = [*limit, sys.executable, "-B", "-m", "llmhost.cli", *words]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "site.py").write_text(SITE)
    (tmp_path / "models.lock.json").write_text(OLD)
    return tmp_path


def names(place: Path) -> list[str]:
    return sorted(each.name for each in place.iterdir() if each.is_file())


def test_full_disk_leaves_the_lock_file(place: Path) -> None:
    ran = run(place, "model", "lock", "site.py", most_bytes=8)
    assert (place / "models.lock.json").read_text() == OLD
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert "models.lock.json cannot be written: File too large" in ran.stderr.replace("\n", "")
    assert names(place) == ["models.lock.json", "site.py"]


def test_who_reads_the_lock_file_meanwhile_sees_all_of_the_old_one(place: Path) -> None:
    with (place / "models.lock.json").open() as before:
        assert run(place, "model", "lock", "site.py").returncode == 0
        assert before.read() == OLD
    assert json.loads((place / "models.lock.json").read_text()) == {"schema": 1, "models": {}}


def test_full_disk_leaves_no_half_file_of_keys(place: Path) -> None:
    (place / "clients.csv").write_text("name\none\ntwo\n")
    words = ("key", "import", "clients.csv", "site.py", "--output", "keys.csv")
    ran = run(place, *words, most_bytes=20)
    assert ran.returncode == 1 and ran.stderr.strip() == "error: keys.csv: File too large"
    assert (place / "site.py").read_text() == SITE
    assert names(place) == ["clients.csv", "models.lock.json", "site.py"]
    assert run(place, *words).returncode == 0
    assert stat.S_IMODE((place / "keys.csv").stat().st_mode) == 0o600


def test_link_and_permissions_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    write_file(link, "new")
    assert link.is_symlink() and real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        write_file(pipe, "page")
        assert reader.communicate(timeout=30)[0] == "page"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_private_file_of_another_run_stays(tmp_path: Path) -> None:
    file = tmp_path / "ca.key"
    write_private_file(file, b"first")
    with pytest.raises(FileExistsError):
        write_private_file(file, b"second")
    assert file.read_bytes() == b"first" and names(tmp_path) == ["ca.key"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
