"""Paths of the files that come with llmhost: in the package, in a checkout by links."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
TEMPLATES = PACKAGE / "templates"
FILES = PACKAGE / "files"
CHECKS = PACKAGE / "checks"
"""The server tests that `llmhost verify` runs."""

DEPLOY = PACKAGE / "deploy.py"
BAKE = PACKAGE / "bake.py"
REQUIREMENTS = PACKAGE / "requirements.lock"
"""What llmhost needs, with versions and hashes."""

CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
"""The repository, if llmhost runs from a checkout."""
