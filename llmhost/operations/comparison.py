"""The comparison of a host with what was declared, without changing it (docs/decisions/0099)."""

from pyinfra.api import Host
from pyinfra.context import ctx_host

from llmhost.operations.run_state import host_run


def compare() -> None:
    """Read the facts of the current host's operations together, then run the body of each operation
    up to its first command: pyinfra then knows whether it would change the host.

    For States that declare operations without comparing (`check_for_changes=False`).
    """
    host: Host = ctx_host.get()
    run = host_run(host)
    run.prefetch.read(host)  # facts that are missing now are read, and reported, by their operation
    for operation in host.op_hash_order:
        run.comparing = operation
        _ = host.state.ops[host][operation].operation_meta.will_change
        run.compared += 1
