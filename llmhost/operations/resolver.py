"""Name servers."""

from collections.abc import Sequence

from llmhost.facts.resolver import Resolver
from llmhost.operations import systemd
from llmhost.operations.changes import explain, refuse
from llmhost.operations.composition import inner, with_reasons
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.operations.files import apply_command
from llmhost.system import resolver
from llmhost.system.files import differences


@declared(prefetch=lambda *_, **__: [ask(Resolver)])
def nameservers(servers: Sequence[str], *, domains: Sequence[str] = ()) -> Commands:
    """Use these name servers, given by address, and `domains` as search domains.

    If systemd-resolved is active, writes a drop-in for it and restarts it; otherwise writes
    /etc/resolv.conf. Refuses a host whose resolv.conf another program manages.
    """
    state = get_fact(Resolver)
    if wrong := resolver.refusal(state):
        yield refuse([wrong])
        return
    reasons = differences([resolver.file(servers, domains, state)], state.paths)
    if reasons:
        explain(reasons.values())
        yield apply_command([*reasons])
    if state.asks_resolved:
        restart = inner(systemd.service)("systemd-resolved.service", newer_than=[resolver.DROP_IN])
        yield from with_reasons([*reasons.values()], restart)
