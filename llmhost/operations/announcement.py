"""Announce the end of a deploy, if the inventory declares who hears of it."""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict

from pyinfra import logger
from pyinfra.api import BaseStateCallback, Host, State

from llmhost.announce.message import Author, HostEnd, deploy_announcement, is_wanted
from llmhost.announce.process import announce
from llmhost.inventory.site import SiteHost
from llmhost.operations.journal import new_record
from llmhost.operations.run_state import host_run, run_of, title
from llmhost.options.announce import Announce


class Progress(BaseStateCallback):
    """Notes when the first operation runs, which a dry run has not, and the end of each host's last
    one."""

    @staticmethod
    def operation_start(state: State, op_hash: str) -> None:
        del op_hash
        run = run_of(state)
        if not run.begun:
            run.begun, run.record = time.monotonic(), new_record()

    @staticmethod
    def operation_host_success(
        state: State, host: Host, op_hash: str, retry_count: int = 0
    ) -> None:
        del state, retry_count
        if op_hash == host.op_hash_order[-1]:
            host_run(host).completed = True


def announce_end(state: State) -> None:
    """Send an announcement to each of the receivers, about their hosts."""
    run = run_of(state)
    if not run.begun or run.record is None or run.site is None:
        return
    hosts = [host for host in state.inventory if state.is_host_in_limit(host)]
    author = Author(run.record.by, run.record.version, run.record.revision)
    seconds = time.monotonic() - run.begun
    for options, some in _receivers(run.site[host.name] for host in hosts):
        ends = [_end(state, host) for host in hosts if host.name in some]
        announcement = deploy_announcement(ends, author, run.record.begun, seconds)
        if is_wanted(announcement, options.after):
            for why in announce(options, asdict(announcement)):
                logger.warning(f"the end of this deploy was not announced: {why}")


def _receivers(hosts: Iterable[SiteHost]) -> list[tuple[Announce, set[str]]]:
    """Options and their hosts: hosts with the same options are announced together."""
    options: dict[str, Announce] = {}
    names: dict[str, set[str]] = defaultdict(set)
    for host in hosts:
        if host.settings.announce.is_declared:
            key = host.settings.announce.model_dump_json()
            options[key] = host.settings.announce
            names[key].add(host.name)
    return [(options[key], names[key]) for key in options]


def _end(state: State, host: Host) -> HostEnd:
    run = host_run(host)
    changed = run.lock.journal.record.changed if run.lock else ()
    if host in state.failed_hosts:
        if host not in state.activated_hosts:
            return HostEnd(host.name, "unreachable")
        at = title(state, run.failed_at) if run.failed_at else ""
        return HostEnd(host.name, "failed", changed, at)
    if not run.completed:
        return HostEnd(host.name, "interrupted", changed)
    return HostEnd(host.name, "changed" if changed else "unchanged", changed)
