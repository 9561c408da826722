"""Checks the inventory before pyinfra connects to its hosts: pyinfra reads this file first."""

from pyinfra import state

from llmhost.operations.pyinfra_patches import check_before_connecting

check_before_connecting(state)
