"""Tables of commands whose output is a file or a pipe."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NAME = "a-model-with-a-name-that-alone-takes-more-than-half-of-a-line"
SOURCE = "hf:some-organisation/a-repository-with-quite-a-long-name/weights-Q4_K_M.gguf"
INVENTORY = f"""
llm_servers = [("server", {{
    "services": ["llamacpp"],
    "models": [{{"name": "{NAME}", "service": "llamacpp", "source": "{SOURCE}"}}],
}})]
"""


@pytest.mark.parametrize(("columns", "whole"), [("", True), ("60", False)])
def test_lines_are_broken_only_where_columns_says_so(
    columns: str, whole: bool, tmp_path: Path
) -> None:
    (tmp_path / "site.py").write_text(INVENTORY)
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    listed = subprocess.run(
        [sys.executable, "-m", "llmhost.cli", "model", "list", "site.py"],
        cwd=tmp_path,
        env=environment | ({"COLUMNS": columns} if columns else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line for line in listed.stdout.splitlines() if NAME in line and SOURCE in line]
    assert bool(rows) == whole, listed.stdout
