"""`model_store_*`: the site's own store of weights."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import model_validator

from llmhost.options.base import Section
from llmhost.options.kind import WORD, Mistake
from llmhost.options.types import SecretReference, text

Location = Annotated[
    str,
    text(
        r"/[\w./@+-]*[\w@+-]|https?://[^\s@?#\"\\]+|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w./+-]*)?",
        "an absolute path on the host, an https:// or http:// URL without a user name, or"
        " s3://BUCKET/PREFIX",
        "https://store.example.com/weights",
    ),
]
Endpoint = Annotated[
    str,
    text(r"https?://[\w.:\[\]/-]+", "an http:// or https:// URL", "https://minio.example.com:9000"),
]
Region = Annotated[str, text(r"[a-z0-9-]{1,40}", "the name of a region", "eu-central-1", WORD)]


class ModelStore(Section):
    """A store of the site that hosts ask for weights, by their digests, before the sources of
    models."""

    location: Location | None = None
    """Where the store is, as the hosts reach it: the directory of a mounted share, an `https://`
    URL, or `s3://BUCKET/PREFIX`. Each file in it has its SHA-256 digest as name. None: weights come
    from their sources."""

    endpoint: Endpoint | None = None
    """With `s3://`: URL of a server that is compatible with S3, such as MinIO. None: Amazon S3."""

    region: Region = "us-east-1"
    """With `s3://`: the region of the bucket."""

    key_id: SecretReference | None = None
    """Where the controller finds the access key's ID (with `s3://`), or the user name (with a
    URL)."""

    key: SecretReference | None = None
    """Where the controller finds the secret access key, or the password. No file and no image on a
    host contains it."""

    @model_validator(mode="after")
    def _key_is_whole(self) -> "ModelStore":
        if (self.key_id is None) != (self.key is None):
            missing, other = ("key_id", "key") if self.key_id is None else ("key", "key_id")
            raise Mistake(f"is missing, and model_store_{other} needs it; add it", missing)
        return self

    @model_validator(mode="after")
    def _places_have_a_host(self) -> "ModelStore":
        for option in ("location", "endpoint"):
            place = getattr(self, option) or ""
            if place.startswith("http") and not _has_host(place):
                raise Mistake("is no URL with a host; correct it", option)
        return self

    @model_validator(mode="after")
    def _options_fit_the_location(self) -> "ModelStore":
        place = self.location or ""
        if self.endpoint and not place.startswith("s3://"):
            raise Mistake("is only for a location such as s3://BUCKET; remove it", "endpoint")
        if place.startswith("s3://") and not self.key:
            raise Mistake(
                "is missing, and a bucket needs it; add model_store_key_id and model_store_key, or"
                " write the https:// URL of a bucket that everyone may read",
                "key",
            )
        if self.key and not place.startswith(("s3://", "https://", "http://")):
            raise Mistake("is only for a URL or a bucket; remove it, and model_store_key_id", "key")
        return self

    @property
    def share(self) -> str:
        """The directory on the host; empty if the store is not one."""
        place = self.location or ""
        return place if place.startswith("/") else ""


def _has_host(url: str) -> bool:
    """Whether host and port of a URL can be used."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        return bool(host) and parts.port != 0 and url.isprintable()
    except ValueError:
        return False
