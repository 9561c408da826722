"""Configuration of pip in the build of an image."""

from urllib.parse import urlsplit

from llmhost.system.files import File


def pip_configuration(index: str | None) -> File:
    """`pip.conf` for an image build that installs packages from this index; none: PyPI.

    pip ignores an index without TLS unless its host is trusted; here the hashes decide.
    """
    lines = ["[global]", *([f"index-url = {index}"] if index else [])]
    if index and index.startswith("http://"):
        lines.append(f"trusted-host = {urlsplit(index).netloc}")
    return File("pip.conf", "\n".join([*lines, ""]))
