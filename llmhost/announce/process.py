"""Announce in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from llmhost.options.announce import Announce

_SECONDS = 90


def announce(options: Announce, body: Mapping[str, Any]) -> list[str]:
    """Send; returns a sentence for each channel that failed, and never raises."""
    given = json.dumps({"options": options.model_dump(mode="json"), "body": body})
    command = [sys.executable, "-P", "-m", "llmhost.announce"]
    try:
        ran = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return [f"it was not sent within {_SECONDS} s"]
    except OSError as error:
        return [f"it was not sent: {error}"]
    if ran.returncode:
        last = ran.stderr.strip().splitlines()[-1:] or ["the process failed"]
        return [f"it was not sent: {last[0]}"]
    return [line for line in ran.stdout.splitlines() if line]
