"""What a builder does for a bundle (docs/air-gap.md): the services' images, nothing else."""

from pyinfra import host, state

from llmhost.operations.inventory import settings_of
from llmhost.operations.pyinfra_patches import patch_run
from llmhost.tasks.stack import bake_images

patch_run(state, host)
bake_images(settings_of(state, host))
