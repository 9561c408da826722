"""Name servers."""

from collections.abc import Sequence

from llmhost.facts.resolver import Resolver
from llmhost.operations import systemd
from llmhost.operations.changes import explain, refuse
from llmhost.operations.composition import inner, told
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.operations.files import apply_command
from llmhost.system import resolver
from llmhost.system.files import differences


@declared(prefetch=lambda *_, **__: [ask(Resolver)])
def nameservers(servers: Sequence[str], *, domains: Sequence[str] = ()) -> Commands:
    """Let the host ask these name servers, by addresses, and complete short names by `domains`.

    Where systemd-resolved answers, it is told by a file of its own and restarted; elsewhere
    /etc/resolv.conf is written. A host whose resolv.conf another program writes is refused.
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
        yield from told([*reasons.values()], restart)
