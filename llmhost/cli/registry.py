"""Ask image registries for tags and digests, by the distribution specification.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md, and for tokens
https://distribution.github.io/distribution/spec/auth/token/. Credentials are those of
`docker login` on the controller, if they are in ~/.docker/config.json.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin

import httpx

from llmhost.outdated.images import Reference
from llmhost.units import reason

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    *_INDEXES,
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MOST_PAGES = 200
_STRANGE = "could not be read: the answer is not that of a registry"
_Found = TypeVar("_Found")


class RegistryError(Exception):
    """Why a registry did not answer; the text continues a sentence that begins with its name."""


class Registries:
    """Connections to registries, as a context manager. `insecure` ones have no TLS; `mirrors` are
    URLs to ask before Docker Hub."""

    def __init__(self, insecure: Collection[str] = (), mirrors: Sequence[str] = ()) -> None:
        self._insecure, self._mirrors = insecure, mirrors
        self._authorizations: dict[str, str] = {}
        self._logins = _logins()
        self._http = httpx.Client(timeout=httpx.Timeout(30, connect=10), follow_redirects=True)

    def __enter__(self) -> "Registries":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def tags(self, image: Reference) -> list[str]:
        """All tags of an image's repository. Raises RegistryError."""
        return self._at_first_that_answers(image, lambda base: self._tags(base, image))

    def is_current(self, image: Reference) -> bool:
        """Whether the image's tag still has its digest, as an index of platforms or as the image of
        one of them. Raises RegistryError."""
        return self._at_first_that_answers(image, lambda base: self._is_current(base, image))

    def _at_first_that_answers(self, image: Reference, question: Callable[[str], _Found]) -> _Found:
        scheme = "http" if image.registry in self._insecure else "https"
        mirrors = self._mirrors if image.registry == "docker.io" else ()
        error = RegistryError("has no address")
        for base in (*(each.rstrip("/") for each in mirrors), f"{scheme}://{image.host}"):
            try:
                return question(base)
            except RegistryError as found:
                error = found
        raise error

    def _tags(self, base: str, image: Reference) -> list[str]:
        url = f"{base}/v2/{image.repository}/tags/list?n=1000"
        tags: list[str] = []
        for _ in range(_MOST_PAGES):
            answer = self._get(url, image)
            tags += map(str, _list(_json(answer), "tags"))
            following = answer.links.get("next", {}).get("url")
            if not following:
                return tags
            url = urljoin(url, following)
        raise RegistryError(f"has more than {_MOST_PAGES} pages of tags")

    def _is_current(self, base: str, image: Reference) -> bool:
        url = f"{base}/v2/{image.repository}/manifests/{image.tag}"
        answer = self._get(url, image, ", ".join(_MANIFESTS))
        if answer.headers.get("Docker-Content-Digest") == image.digest:
            return True
        listed = _list(_json(answer), "manifests")
        return image.digest in [each.get("digest") for each in listed if isinstance(each, dict)]

    def _get(self, url: str, image: Reference, accept: str = "application/json") -> httpx.Response:
        known = self._authorizations.get(image.name)
        answer = self._once(url, accept, known)
        if answer.status_code == httpx.codes.UNAUTHORIZED and not known:
            challenge = answer.headers.get("WWW-Authenticate", "")
            self._authorizations[image.name] = self._authorize(challenge, image)
            answer = self._once(url, accept, self._authorizations[image.name])
        if answer.status_code in (401, 403):
            raise RegistryError(f"refuses {image.repository}: docker login {image.registry}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise RegistryError(f"has no {image.repository}, or not its tag {image.tag}")
        if answer.is_error:
            raise RegistryError(f"answered {answer.status_code}")
        return answer

    def _once(self, url: str, accept: str, authorization: str | None) -> httpx.Response:
        headers = {"Accept": accept, **({"Authorization": authorization} if authorization else {})}
        try:
            return self._http.get(url, headers=headers)
        except httpx.HTTPError as error:
            raise RegistryError(f"could not be reached ({reason(error)})") from None

    def _authorize(self, challenge: str, image: Reference) -> str:
        """A header for a challenge; a token's realm may be another host."""
        login = self._logins.get(image.registry)
        basic = f"Basic {login}" if login else None
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and basic:
            return basic
        given = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        realm = given.pop("realm", "")
        if scheme.lower() != "bearer" or not realm.startswith(("https://", "http://")):
            raise RegistryError(f"refuses {image.repository}: docker login {image.registry}")
        given.setdefault("scope", f"repository:{image.repository}:pull")
        answer = self._once(str(httpx.URL(realm, params=given)), "application/json", basic)
        if answer.is_error:
            raise RegistryError(f"gave no token: its {realm} answered {answer.status_code}")
        found = _json(answer)
        return f"Bearer {found.get('token') or found.get('access_token') or ''}"


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RegistryError(_STRANGE)
    return found


def _list(answer: Mapping[str, Any], key: str) -> list[Any]:
    """A list in an answer, which may be missing or null. Raises RegistryError."""
    found = answer.get(key) or []
    if not isinstance(found, list):
        raise RegistryError(_STRANGE)
    return found


def _logins() -> dict[str, str]:
    """What `docker login` stored on the controller, by registry; a keyring is not read."""
    try:
        found = json.loads(Path("~/.docker/config.json").expanduser().read_text())["auths"]
        pairs = {name: str(each["auth"]) for name, each in found.items() if each.get("auth")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    hub = pairs.pop("https://index.docker.io/v1/", None)
    return {**pairs, **({"docker.io": hub} if hub else {})}
