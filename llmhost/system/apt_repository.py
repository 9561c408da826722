"""A package repository as apt is told of it."""

from dataclasses import dataclass

from llmhost.system.files import Absent, Directory, Entry, File

KEYRINGS = "/etc/apt/keyrings"


@dataclass(frozen=True)
class Repository:
    """A third party's repository, in the terms of sources.list(5).

    `label` names its files. `suite` is a release's codename, or `/` for a flat repository, which
    has no `components`. `key_url` is where its key is fetched, `fingerprint` what the key must
    have; with `key` (the key itself, armoured or not) nothing is fetched. `replaces` lists files of
    other installation methods, which would give apt two keys for one source.
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
        """All paths that the repository concerns."""
        return [entry.path for entry in self.entries(b"")]

    def entries(self, key: bytes) -> list[Entry]:
        """Files of the repository, with a key that has been checked."""
        return [
            Directory(KEYRINGS),
            *(Absent(path) for path in self.replaces),
            File(self.key_path, key),
            File(self.sources_path, self.sources),
        ]

    @property
    def removal(self) -> list[Entry]:
        """What must be so when the repository is not wanted."""
        return [Absent(self.sources_path), Absent(self.key_path)]
