"""The servers behind a gateway."""

from collections.abc import Mapping

from llmhost.facts.upstreams import SilentUpstreams
from llmhost.operations.changes import refuse
from llmhost.operations.declaration import Commands, declared, get_fact


@declared(prefetch=None)  # servers are reached, or not, at the moment
def reachable(*, servers: Mapping[str, tuple[str, int]], marks: str) -> Commands:
    """Refuse a gateway that can not reach a server; one that is drained is not missed.

    `servers` are address and port by name, `marks` is the directory with the marks of drained ones.
    """
    silent = get_fact(SilentUpstreams, servers=servers, marks=marks)
    if silent:
        yield refuse(
            f"{name} accepts no connection at {' port '.join(map(str, servers[name]))}: deploy the"
            " servers first (--limit), and let them admit this host"
            for name in silent
        )
