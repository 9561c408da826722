"""A private image registry on the controller, as at a site without Internet access.

It is Debian's docker-registry, unpacked but not installed: no service remains. Images are pushed
over HTTP as in the distribution specification
(https://github.com/opencontainers/distribution-spec/blob/main/spec.md), so no image tool is needed.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import signal
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from testbed.process import MachineError, ProcessId, run, spawn, wait_until
from testbed.rootfs import cache

PORT = 5000
"""The port in Docker's documentation of a private registry."""

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_SETTINGS = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {images}}}}}
http: {{addr: "{name}"}}
"""


class ImageRegistry:
    """A context manager that serves images from ``storage`` at ``address``, without TLS."""

    def __init__(self, address: str, storage: Path) -> None:
        self.name = f"{address}:{PORT}"
        """``host:port``, the first part of the references of its images."""
        self._endpoint = (address, PORT)
        self._storage = storage.resolve()
        self._process: ProcessId | None = None

    def __enter__(self) -> Self:
        self._storage.mkdir(parents=True, exist_ok=True)
        settings = self._storage / "config.yml"
        settings.write_text(_SETTINGS.format(images=self._storage / "images", name=self.name))
        log = self._storage / "registry.log"
        # It must not be another registry.
        if self._answers():
            raise MachineError(f"something else already listens on {self.name}: stop it first")
        # The registry ends with this process, even if that is killed.
        command = ["setpriv", "--pdeathsig", "KILL", str(_program()), "serve", str(settings)]
        self._process = spawn(command, log)
        if not wait_until(self._answers, 10, 0.05):
            self.stop()
            raise MachineError(f"the image registry did not start: see {log}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server; images stay in its storage."""
        if self._process:
            self._process.send(signal.SIGTERM)
            if not self._process.wait(5):
                self._process.send(signal.SIGKILL)
                self._process.wait(5)
            # Its threads, and so the socket, may exist for a moment after the process.
            wait_until(lambda: not self._answers(), 5, 0.05)
            self._process = None

    def push(self, repository: str, tag: str, root: Path) -> str:
        """Create an image from one root file system, a tar archive, and store it.

        Returns its full reference, ``host:port/repository:tag@sha256:…``. Equal archives give equal
        digests: the image does not depend on time or place.
        """
        with httpx.Client(base_url=f"http://{self.name}/v2/{repository}/", timeout=120) as http:
            layer = _describe(_LAYER, root.read_bytes())
            config = _describe(_CONFIG, _json(_image_config(layer["digest"])))
            for blob in (layer, config):
                _push_blob(http, blob)
            manifest = _json(
                {
                    "schemaVersion": 2,
                    "mediaType": _MANIFEST,
                    "config": _descriptor(config),
                    "layers": [_descriptor(layer)],
                }
            )
            headers = {"Content-Type": _MANIFEST}
            http.put(f"manifests/{tag}", content=manifest, headers=headers).raise_for_status()
        return f"{self.name}/{repository}:{tag}@{_digest(manifest)}"

    def _answers(self) -> bool:
        try:
            with socket.create_connection(self._endpoint, timeout=1):
                return True
        except OSError:
            return False


def _program() -> Path:
    """The server's program, from a package that is downloaded and unpacked once."""
    home = cache() / "docker-registry"
    if not home.exists():
        cache().mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="docker-registry-", dir=cache()))
        run(["sh", "-c", _UNPACK, "sh", str(draft)])
        with suppress(OSError):  # another process was faster
            draft.rename(home)
        shutil.rmtree(draft, ignore_errors=True)
    return home / "usr/bin/docker-registry"


# apt-get download writes into the current directory; package lists may be missing or too old.
_UNPACK = """\
set -e; cd "$1"; chmod 0755 .
get='apt-get -q download docker-registry'
$get || { apt-get -q update; $get; }
dpkg-deb -x docker-registry_*.deb .
"""


def _image_config(layer_digest: str) -> dict[str, Any]:
    return {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {},
        # The layer is not compressed, so its digest is that of its contents too.
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    }


def _describe(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data), "data": data}


def _descriptor(blob: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in blob.items() if key != "data"}


def _push_blob(http: httpx.Client, blob: dict[str, Any]) -> None:
    if http.head(f"blobs/{blob['digest']}").status_code == httpx.codes.OK:
        return
    place = http.post("blobs/uploads/").raise_for_status().headers["Location"]
    address = httpx.URL(place).copy_merge_params({"digest": blob["digest"]})
    http.put(address, content=blob["data"]).raise_for_status()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
