"""Error answers."""

from typing import Any

JSON, JSON_UTF8 = "application/json", "application/json; charset=utf-8"
Json = dict[str, Any]


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, text: str, kind: str = JSON_UTF8) -> None:
        super().__init__(text)
        self.status, self.kind = status, kind
