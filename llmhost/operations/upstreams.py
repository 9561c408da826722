"""The servers behind a gateway."""

from collections.abc import Mapping

from llmhost.facts.upstreams import SilentUpstreams
from llmhost.operations.changes import refuse
from llmhost.operations.declaration import Commands, declared, get_fact


@declared(prefetch=None)  # reachability is valid only at the time of the check
def reachable(*, servers: Mapping[str, tuple[str, int]], marks: str) -> Commands:
    """Refuse a gateway that cannot reach a server that is not drained.

    `servers` are address and port by name, `marks` is the directory with the marks of drained
    servers.
    """
    silent = get_fact(SilentUpstreams, servers=servers, marks=marks)
    if silent:
        yield refuse(
            f"{name} accepts no connection at {' port '.join(map(str, servers[name]))}: deploy the"
            " servers first (--limit), and make sure that their firewall admits this host"
            for name in silent
        )
