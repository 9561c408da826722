"""The site's store of weights: where a file is, and what a request for it needs. Pure.

A file's name in the store is its SHA-256 digest.
"""

from dataclasses import dataclass
from datetime import datetime

from llmhost.models.signature import Key, presigned
from llmhost.options.model_store import ModelStore
from llmhost.secret import read_password

VALID_SECONDS = 12 * 3600
"""How long the URL of a file in a bucket can be used."""


@dataclass(frozen=True)
class Credentials:
    """User name and password, or the ID and the secret of an access key."""

    user: str
    password: str


def credentials(store: ModelStore) -> Credentials | None:
    """The secrets of a store; none if it has none. Raises ValueError, whose text begins with the
    option."""
    found = []
    for option in ("key_id", "key"):
        if reference := getattr(store, option):
            try:
                found.append(read_password(reference))
            except ValueError as error:
                raise ValueError(f"model_store_{option} {error}") from None
    return Credentials(*found) if found else None


def address(store: ModelStore, sha256: str) -> str:
    """Path or URL of a file in the store, without credentials."""
    place = (store.location or "").rstrip("/")
    if place.startswith("s3://"):
        endpoint = store.endpoint or f"https://s3.{store.region}.amazonaws.com"
        # With the bucket in the path, which every server supports.
        place = f"{endpoint.rstrip('/')}/{place.removeprefix('s3://')}"
    return f"{place}/{sha256}"


def open_address(store: ModelStore, sha256: str) -> str:
    """The same if it can be read without credentials; empty otherwise."""
    return "" if store.key else address(store, sha256)


def signed(
    store: ModelStore,
    secrets: Credentials,
    method: str,
    sha256: str,
    now: datetime,
    query: dict[str, str] | None = None,
) -> str:
    """URL of a file in a bucket, with the permission for one method."""
    key = Key(secrets.user, secrets.password, store.region)
    return presigned(method, address(store, sha256), key, now, VALID_SECONDS, query)


def curl_configuration(
    store: ModelStore, secrets: Credentials | None, sha256: str, now: datetime
) -> str:
    """Configuration for curl's standard input, so that no secret is among its arguments. A host
    gets the URL of one file in a bucket, and not the key."""
    url = address(store, sha256)
    if not secrets:
        return f'url = "{url}"'
    if (store.location or "").startswith("s3://"):
        return f'url = "{signed(store, secrets, "GET", sha256, now)}"'
    user = f"{secrets.user}:{secrets.password}".replace("\\", "\\\\").replace('"', '\\"')
    return f'url = "{url}"\nuser = "{user}"'
