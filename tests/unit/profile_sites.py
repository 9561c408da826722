"""Inventory data of profiles: models are locked and secrets are there, weights are not."""

from pathlib import Path
from typing import Any

from llmhost.inventory.profiles import PROFILES
from llmhost.models.lock import write_lock
from llmhost.services import catalogue
from llmhost.services.docling import TOKENIZER

CLIENTS = [{"name": "app", "sha256": "ab" * 32}]
COMMIT = "12" * 20


def write_pins(path: Path) -> Path:
    """A lock file with pins for every model of every profile."""
    models = [model for each in PROFILES.values() for model in each.defaults.get("models", ())]
    path.write_text(write_lock({model["source"]: _pins(model["source"]) for model in models}))
    return path


def _pins(source: str) -> dict[str, Any]:
    if source.startswith("ollama:"):
        names = ("manifest", f"sha256-{'cd' * 32}")
        return {"files": [{"path": name, "sha256": "cd" * 32} for name in names]}
    if source.endswith(".gguf"):
        return {"revision": COMMIT, "sha256": "cd" * 32}
    paths = ["config.json", *(["sentence_bert_config.json"] if source.endswith(TOKENIZER) else [])]
    return {"revision": COMMIT, "files": [{"path": path, "sha256": "cd" * 32} for path in paths]}


def secrets_of(profile: str, directory: Path) -> dict[str, str]:
    """References to a secret for each option of the profile's services that needs one."""
    secret = directory / "secret"
    secret.write_text("a secret $of {the} site\n")
    return {
        f"{service}_{option}": f"file:{secret}"
        for service in PROFILES[profile].services
        for option in catalogue()[service].options.secret_options.values()
    }


def locked_profile(profile: str, directory: Path, **more: Any) -> dict[str, Any]:
    """A whole inventory: the profile's name, a lock file, a client, and what `more` overrides."""
    lock = write_pins(directory / "models.lock.json")
    data = {"stack_profile": profile, "stack_models_lock": str(lock), "api_clients": CLIENTS}
    return data | secrets_of(profile, directory) | more
