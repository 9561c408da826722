"""Starting the containers: files/docker/up.sh with a docker that notes what it is asked."""

import os
import subprocess
from pathlib import Path

from llmhost.resources import FILES

DOCKER = """\
#!/bin/sh
echo "$@" >>"$NOTES"
case "$*" in
  *"up --detach"*) exit "${UP:-0}" ;;
  *"config --volumes"*) printf 'redis-data\\nvllm-cache-new\\n' ;;
  "volume ls"*) printf 'llmhost_vllm-cache-old\\nllmhost_vllm-cache-new\\n' ;;
  "volume rm"*) exit 1 ;;
esac
"""


def started(directory: Path, **environment: str) -> tuple[int, list[str]]:
    (directory / "docker").write_text(DOCKER)
    (directory / "docker").chmod(0o755)
    file = directory / "compose.yaml"
    file.write_text('name: "llmhost"\ninclude:\n')
    path = f"{directory}:{os.environ['PATH']}"
    variables = {"PATH": path, "NOTES": str(directory / "notes"), **environment}
    command = ["sh", str(FILES / "docker/up.sh"), str(file), "60", "--remove-orphans"]
    done = subprocess.run(command, env=variables, check=False)
    return done.returncode, (directory / "notes").read_text().splitlines()


def test_cache_that_is_no_longer_declared_is_removed_and_no_other(tmp_path: Path) -> None:
    status, asked = started(tmp_path)
    assert status == 0  # although it could not be removed
    assert [each for each in asked if each.startswith("volume rm")] == [
        "volume rm llmhost_vllm-cache-old"
    ]
    (listed,) = [each for each in asked if each.startswith("volume ls")]
    assert "label=llmhost.cache" in listed and "dangling=true" in listed
    assert "label=com.docker.compose.project=llmhost" in listed


def test_failed_start_is_told_and_removes_nothing(tmp_path: Path) -> None:
    status, asked = started(tmp_path, UP="3")
    assert status == 3 and not [each for each in asked if each.startswith("volume")]
