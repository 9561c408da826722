"""A package repository, as configured for apt."""

from collections.abc import Iterable
from dataclasses import dataclass

from llmhost.system.apt_sources import Listed
from llmhost.system.files import Absent, Directory, Entry, File

KEYRINGS = "/etc/apt/keyrings"


@dataclass(frozen=True)
class Repository:
    """A third-party repository, in the terms of sources.list(5).

    `label` names its files. `suite` is a release's codename, or `/` for a flat repository, which
    has no `components`. The key is downloaded from `key_url` and must have the `fingerprint`,
    unless `key` is given (armored or not). `replaces` lists files of other installation methods,
    which would give apt two keys for one source.
    """

    label: str
    uri: str
    suite: str
    components: tuple[str, ...]
    fingerprint: str
    key_url: str
    key: bytes | None = None
    replaces: tuple[str, ...] = ()

    @property
    def key_path(self) -> str:
        return f"{KEYRINGS}/{self.label}.gpg"

    @property
    def sources_path(self) -> str:
        return f"/etc/apt/sources.list.d/{self.label}.sources"

    @property
    def sources(self) -> str:
        """Content of the deb822 file."""
        fields = {
            "Types": "deb",
            "URIs": self.uri,
            "Suites": self.suite,
            "Components": " ".join(self.components),
            "Signed-By": self.key_path,
        }
        body = "".join(f"{key}: {value}\n" for key, value in fields.items() if value)
        return f"# Managed by llmhost: edit the inventory instead.\n{body}"

    @property
    def paths(self) -> list[str]:
        """All paths of the repository."""
        return [entry.path for entry in self.entries(b"")]

    def entries(self, key: bytes) -> list[Entry]:
        """Files of the repository, with a verified key."""
        return [
            Directory(KEYRINGS),
            *(Absent(path) for path in self.replaces),
            File(self.key_path, key),
            File(self.sources_path, self.sources),
        ]

    @property
    def removal(self) -> list[Entry]:
        """Entries that remove the repository."""
        return [Absent(self.sources_path), Absent(self.key_path)]

    def superseded(self, listed: Iterable[Listed]) -> tuple[str, ...]:
        """Files that name only this source, with another key or none."""
        listed = tuple(listed)
        shared = {each.path for each in listed if not each.names_only(self.uri, self.suite)}
        paths = dict.fromkeys(each.path for each in self._rivals(listed))
        return tuple(path for path in paths if path not in shared)

    def clashes(self, listed: Iterable[Listed]) -> tuple[str, ...]:
        """Sentences about files that name this source besides others."""
        listed = tuple(listed)
        superseded = self.superseded(listed)
        return tuple(
            f"{each.path}, line {each.line}, has the source {self.uri} too, and apt refuses a"
            f" source with two keys: remove it there, for llmhost writes it to {self.sources_path}"
            for each in self._rivals(listed)
            if each.path not in superseded
        )

    def _rivals(self, listed: Iterable[Listed]) -> tuple[Listed, ...]:
        own = {self.sources_path, *self.replaces}
        return tuple(
            each
            for each in listed
            if each.path not in own
            and each.enabled
            and each.signed_by != self.key_path
            # apt reads the files in this order, and accepts a source without a key before ours.
            and (each.signed_by or each.path > self.sources_path)
            and each.names(self.uri, self.suite)
        )
