"""The images of a host's services, built on another machine for a bundle (docs/air-gap.md).

`llmhost bundle create` runs it with pyinfra, with that machine in the host's place.
"""

from pyinfra import host, state

from llmhost.operations.inventory import site_host
from llmhost.operations.pyinfra_patches import patch_run
from llmhost.tasks.stack import bake_images

patch_run(state, host)
bake_images(site_host(host).settings)
