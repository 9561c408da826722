"""Receipt: what was deployed, by which llmhost, from which settings."""

from collections import Counter

from llmhost.history.rollback import GROUP, places_of
from llmhost.operations import receipt
from llmhost.operations.component import component
from llmhost.settings import Settings
from llmhost.stack.engine_group import shared_digest
from llmhost.stack.project import service_images
from llmhost.version import toolkit


@component("Receipt")
def write_receipt(settings: Settings) -> None:
    """Write a record on the host after everything else is done."""
    images = {image.service: image.reference for image in service_images(settings)}
    record = {"settings": settings.digest, "toolkit": toolkit(), "models": _models(settings)}
    if settings.group_services:
        record[GROUP] = shared_digest(settings, images)
    receipt.written(
        settings.receipt.path,
        record,
        [*images.values()],
        keep=places_of(settings),
        name="Record what was deployed",
    )


def _models(settings: Settings) -> dict[str, str]:
    """Digest of each model by its name; by name and service, if several services run it."""
    counts = Counter(model.name for model in settings.models)
    return {
        model.name if counts[model.name] == 1 else f"{model.name}/{model.service}": model.digest
        for model in settings.models
    }
