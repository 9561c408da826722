"""Return to an earlier deploy, and remove what no deploy needs."""

import uuid
from collections.abc import Collection

from pyinfra.api import StringCommand

from llmhost.facts.kept_deploys import KeptDeploys, status_file
from llmhost.history.prune import prune_script, superfluous
from llmhost.history.rollback import DeployPaths, KeptState, chosen, other_places, return_script
from llmhost.operations.changes import explain, refuse
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import Question, ask


def read_kept(places: DeployPaths, uploads: str) -> KeptState:
    """The kept deploys and images of the current host."""
    return get_fact(KeptDeploys, **_question(places, uploads).arguments)


def _question(places: DeployPaths, uploads: str) -> Question:
    return ask(
        KeptDeploys,
        receipt=places.receipt,
        status_file=status_file(places.gateway),
        uploads=uploads,
    )


@declared(prefetch=lambda steps, *, places, uploads: [_question(places, uploads)])
def returned(steps: int, *, places: DeployPaths, uploads: str) -> Commands:
    """Return stack and gateway to an earlier deploy, `steps` before the current one.

    Both are tested completely before the first file changes. The receipt becomes that of the
    earlier deploy; everything else on the host stays.
    """
    found = read_kept(places, uploads)
    kept = chosen(found, steps)
    if isinstance(kept, str):
        yield refuse([kept])
    elif other_places(kept, places):
        yield refuse(
            [
                f"the files of the deploy of {kept.time} are not at the paths that the inventory"
                f" declares now; deploy its inventory (revision {kept.revision}) instead"
            ]
        )
    else:
        explain([f"stack and gateway return to {kept.time}"])
        yield StringCommand(return_script(kept, found, places, uuid.uuid4().hex))


@declared(prefetch=lambda declared_images, *, places, uploads: [_question(places, uploads)])
def pruned(declared_images: Collection[str], *, places: DeployPaths, uploads: str) -> Commands:
    """Remove llmhost images and uploads that nothing needs."""
    todo = superfluous(read_kept(places, uploads), declared_images)
    if todo.images or todo.uploads:
        explain([*(f"{name} is no longer needed" for name in todo.references), *todo.uploads])
        yield StringCommand(prune_script(todo, uploads))
