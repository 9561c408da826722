"""Builds the images of a host's services on another machine for a bundle (docs/air-gap.md).

`llmhost bundle create` runs it with pyinfra on that machine instead of the host.
"""

from pyinfra import host, state

from llmhost.operations.inventory import site_host
from llmhost.operations.pyinfra_patches import patch_run
from llmhost.tasks.stack import bake_images

patch_run(state, host)
bake_images(site_host(host).settings, once=False)  # the machine and its cache are not llmhost's
