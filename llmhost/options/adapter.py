"""`models[].adapters`: LoRA adapters of a model, each with a name of its own."""

from collections.abc import Mapping
from typing import Annotated

from llmhost.options.base import Section
from llmhost.options.kind import WORD
from llmhost.options.types import LocalName, Sha256, text

# As Docker allows it in the name of an image (distribution, reference/regexp.go).
Role = Annotated[
    str,
    text(
        r"(?=.{1,63}$)[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*",
        "up to 63 lower-case letters and digits, joined by dots, hyphens or underscores",
        "coder",
        WORD,
    ),
]
"""The name of a model or adapter for clients."""

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""Files of an adapter, as PEFT writes them."""


class LoraAdapter(Section):
    """An adapter in PEFT's format."""

    name: Role
    """Name that clients request, instead of the model's."""

    source: LocalName
    """Directory on the controller with `adapter_config.json` and `adapter_model.safetensors`."""

    sha256: Sha256 | None = None
    """SHA-256 digest of `adapter_model.safetensors`; none: whatever is there."""

    def path(self, model: str) -> str:
        """Its directory inside the image."""
        return f"/models/{model}.adapters/{self.name}"

    def places(self, model: str) -> Mapping[str, str]:
        """Path of each file on the controller, by its path inside the image."""
        directory = self.source.rstrip("/")
        return {f"{self.path(model)}/{file}": f"{directory}/{file}" for file in ADAPTER_FILES}
