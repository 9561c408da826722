"""What `script/demo --chat` says when there is nothing to talk to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def chat(home: Path, typed: str = "Hello\n") -> "subprocess.CompletedProcess[str]":
    """The program, with its end of input after what is typed."""
    return subprocess.run(
        [sys.executable, "-m", "testbed.demo", "--chat"],
        cwd=ROOT,
        env=os.environ | {"LLMHOST_DEMO": str(home)},
        input=typed,
        capture_output=True,
        text=True,
        timeout=300,
    )


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="script/demo needs root")


def test_missing_demo_is_named(tmp_path: Path) -> None:
    result = chat(tmp_path)
    assert result.returncode == 1
    assert result.stderr == "error: there is no demo; create it: script/demo\n"


def test_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    url = "http://127.0.0.1:1"
    (tmp_path / "env").write_text(f"LLMHOST_URL={url}\nLLMHOST_API_KEY=key\n")
    result = chat(tmp_path)
    assert result.returncode == 1
    assert result.stderr == f"error: {url} does not answer; start the demo: script/demo\n"
