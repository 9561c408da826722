"""Commands that checks run on a server, and states in readable form."""

from typing import Any

from llmhost.verify.report import Asked

asked: list[Asked] = []
"""Commands of this run, in order; the recorder reads the commands of a check from here."""


_COMPLAINT = 400


def watch(host: Any, server: str) -> None:
    """Record every command that testinfra runs on this server."""
    run = host.backend.run

    def noted(command: str, *arguments: str, **options: Any) -> Any:
        result = run(command, *arguments, **options)
        text = host.backend.quote(command, *arguments)
        complaint = result.stderr.strip()[-_COMPLAINT:] if result.rc else ""
        asked.append(Asked(server, text, result.rc, complaint))
        return result

    host.backend.run = noted


def unit(host: Any, name: str) -> str:
    """A systemd unit's states, such as `active, enabled`."""
    shown = host.run(f"systemctl is-active {name}; systemctl is-enabled {name}").stdout
    return ", ".join(shown.split())


def guard(host: Any, path: str) -> str:
    """Owner, group and mode of a file, such as `root:root 0644`, or `missing`."""
    shown = host.run("stat -L -c '%%U:%%G %%a' %s", path).stdout
    owners, _, mode = shown.strip().rpartition(" ")
    return f"{owners} {mode:0>4}" if owners else "missing"
