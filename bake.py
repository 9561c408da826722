"""Builds the images of a host's services on another machine for a bundle (docs/air-gap.md).

`llmhost bundle create` runs it with pyinfra on that machine instead of the host.
"""

from pyinfra import host, state

from llmhost.inventory.site_reader import no_rules, no_site_rules
from llmhost.operations.inventory import inventory_site
from llmhost.operations.pyinfra_patches import patch_run
from llmhost.tasks.stack import bake_images

patch_run(state, host)
# The inventory is checked by `bundle create`. Here it has one host, with another name.
site = inventory_site(state.inventory, [host], no_rules, no_site_rules)
bake_images(site[host.name].settings, once=False)  # the machine and its cache are not llmhost's
