"""Mistakes in the options that limit connections of containers."""

from collections.abc import Iterator

from llmhost.inventory.problem import Problem
from llmhost.settings import Settings


def egress_problems(settings: Settings) -> Iterator[Problem]:
    """URLs that containers could not reach, and destinations without an effect."""
    if settings.stack.egress == "allow":
        if settings.stack.egress_allow:
            what = 'has no effect, because stack_egress is "allow"'
            yield Problem("stack_egress_allow", what, 'remove it, or set stack_egress to "deny"')
        return
    for service, url in settings.unreachable_urls:
        yield Problem(
            "stack_egress_allow",
            f"lacks {url}, to which '{service}' connects",
            'add its address, port and name, or set stack_egress to "allow"',
        )
