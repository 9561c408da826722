"""Where what llmhost brings along lies: in a checkout and in an installation alike, beside this."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
TEMPLATES = PACKAGE / "templates"
FILES = PACKAGE / "files"
CHECKS = PACKAGE / "checks"
"""The server tests that `llmhost verify` runs."""

DEPLOY = PACKAGE / "deploy.py"
BAKE = PACKAGE / "bake.py"

CHECKOUT = PACKAGE.parent
"""The repository where llmhost runs from a checkout."""
