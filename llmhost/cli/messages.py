"""What pyinfra logs about each host, in the words of llmhost."""

import logging
import re

_UNREACHED = {
    "Authentication error": "SSH refuses the login",
    "Could not resolve hostname": "its name cannot be resolved",
    "SSH host key error": "its SSH host key has changed",
    "Could not connect": "no SSH connection",
    "SSH error": "no SSH connection",
    "EOF error": "the SSH connection was closed",
}
"""What pyinfra's SSH connector writes before its reason, and what that means."""
_KEYS = {
    "No such private key file: ": "ssh_key: no file {} on this machine",
    "Invalid private key file: ": "ssh_key: {} is no private key, or ssh_key_password is wrong",
}
"""The same for a key that cannot be used; the name of its file follows."""
_CONNECTING = re.compile(rf"({'|'.join(_UNREACHED)}) \((.*)\)", re.DOTALL)
_REASON = re.compile(r"(\[Errno \S+\] )?(.*?)\.?", re.DOTALL)


class Messages(logging.Handler):
    """Collects what pyinfra logs about each host, instead of mixing it with our output."""

    def __init__(self, inventory: str = "INVENTORY") -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._inventory = inventory

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def about(self, host: str, otherwise: str = "") -> list[str]:
        """Sentences about a host; at least one."""
        mark = f"[{host}] "
        # pyinfra pads the names of hosts to the same width.
        lines = [line.partition(mark)[2].strip() for line in self.lines if mark in line]
        doctor = f"run llmhost doctor {self._inventory} for the cause"
        return [_worded(line, doctor) for line in lines] or [
            otherwise or f"no SSH connection; {doctor}"
        ]


def _worded(line: str, doctor: str) -> str:
    for sign, sentence in _KEYS.items():
        if line.startswith(sign):
            return f"{sentence.format(line.removeprefix(sign))}; {doctor}"
    found = _CONNECTING.fullmatch(line)
    if not found:
        return line
    sign, reason = found.groups()
    shown = _REASON.fullmatch(reason)
    why = (shown[2] if shown else reason).replace(") (", ", ")
    return f"{_UNREACHED[sign]} ({why[:1].lower()}{why[1:]}); {doctor}"
