"""URLs of S3 that carry their own permission: AWS Signature Version 4 in the query. Pure.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Key:
    """An access key, and the region that it is used in."""

    id: str
    secret: str
    region: str


def presigned(
    method: str,
    url: str,
    key: Key,
    now: datetime,
    seconds: int,
    query: Mapping[str, str] | None = None,
) -> str:
    """The URL with a signature for one method. It is valid for so many seconds, at most a week.

    `url` has no query and is not encoded; `query` are further parameters of the request.
    """
    parts, when = urlsplit(url), now.astimezone(UTC)
    stamp = when.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{when:%Y%m%d}/{key.region}/s3/aws4_request"
    path = quote(parts.path, safe="/~") or "/"
    # Clients leave the default port out of the header Host.
    host = parts.netloc.removesuffix(f":{_PORTS[parts.scheme]}")
    parameters = {
        **(query or {}),
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{key.id}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": "host",
    }
    encoded = "&".join(f"{_encoded(n)}={_encoded(v)}" for n, v in sorted(parameters.items()))
    request = "\n".join([method, path, encoded, f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"])
    digest = hashlib.sha256(request.encode()).hexdigest()
    signed = "\n".join([ALGORITHM, stamp, scope, digest])
    signature = hmac.new(_signing_key(key, scope), signed.encode(), hashlib.sha256).hexdigest()
    return f"{parts.scheme}://{host}{path}?{encoded}&X-Amz-Signature={signature}"


def _signing_key(key: Key, scope: str) -> bytes:
    found = f"AWS4{key.secret}".encode()
    for part in scope.split("/"):
        found = hmac.new(found, part.encode(), hashlib.sha256).digest()
    return found


def _encoded(text: str) -> str:
    return quote(text, safe="~")
