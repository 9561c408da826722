"""Deploy from a bundle: compare everything, copy the missing parts to the hosts, deploy."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import typer

from llmhost.bundle.file import Bundle
from llmhost.bundle.host import (
    CHECK_SCRIPT,
    LOOK_SCRIPT,
    REMOVE_SCRIPT,
    UNPACK_SCRIPT,
    HostState,
    append_script,
    checksums,
    finish_script,
    keys_script,
    parse_check,
    parse_look,
    stream,
)
from llmhost.bundle.manifest import IMAGES, KEYS, PACKAGES, BundleError, Part, lacking, unfit
from llmhost.bundle.packages import APT_CONF, apt_files
from llmhost.cli.bundle_targets import images_of, packages_of
from llmhost.cli.remote import Remote, RemoteError, remote
from llmhost.cli.run import run_pyinfra
from llmhost.docker.image import missing
from llmhost.facts.images import inspect_command, parse_images
from llmhost.inventory.site import SiteHost
from llmhost.resources import DEPLOY
from llmhost.units import gib

_AT_ONCE = 8
"""Hosts that get their parts at the same time."""


@dataclass(frozen=True)
class Delivery:
    """A host, its connection, its state, and the parts that it lacks."""

    target: SiteHost
    remote: Remote
    state: HostState
    parts: tuple[Part, ...]


@contextmanager
def deliveries(bundle: Bundle, targets: Sequence[SiteHost]) -> Iterator[list[Delivery]]:
    """What each host lacks. Raises BundleError with all reasons if a host cannot use the bundle."""
    manifest = bundle.manifest
    problems = [
        sentence
        for target in targets
        for sentence in lacking(
            manifest,
            target.name,
            packages_of(target, manifest.release),
            [image.reference for image in images_of(target)],
        )
    ]
    if problems:
        raise BundleError("\n".join(problems))
    with ExitStack() as stack:
        reached = [stack.enter_context(remote(each.name, each.data)) for each in targets]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = [*pool.map(partial(_delivery, bundle), targets, reached)]
        for each in found:
            problems += unfit(manifest, each.target.name, each.state.release)
            problems += _too_large(each)
        if problems:
            raise BundleError("\n".join(problems))
        for target in targets:
            if manifest.settings.get(target.name) != target.settings.digest:
                typer.echo(f"note: {target.name}: its options changed after the bundle was created")
        yield found


def _delivery(bundle: Bundle, target: SiteHost, reached: Remote) -> Delivery:
    state = parse_look(reached.run(LOOK_SCRIPT))
    declared = images_of(target)
    references = [image.reference for image in declared]
    listed = reached.run(f"{inspect_command(references)}; true") if references else ""
    wanted = missing(declared, parse_images(listed.splitlines()))
    archives = {bundle.manifest.images[image.reference] for image in wanted}
    images = [part for part in bundle.manifest.below(IMAGES) if part.path in archives]
    parts = [*images, *bundle.manifest.below(PACKAGES, KEYS)]
    there = [part for part in parts if state.files.get(part.path) == part.bytes]
    damaged = parse_check(reached.run(CHECK_SCRIPT, checksums(there))) if there else set()
    whole = {part.path for part in there} - damaged
    return Delivery(target, reached, state, tuple(p for p in parts if p.path not in whole))


def _too_large(each: Delivery) -> Iterator[str]:
    arrived = sum(each.state.files.get(f"{part.path}.part", 0) for part in each.parts)
    needed = sum(part.bytes for part in each.parts) - arrived
    if needed > each.state.free:
        yield (
            f"{each.target.name} needs {gib(needed)} for the bundle but has"
            f" {gib(each.state.free)} free: free disk space below /var/lib"
        )


def deliver_all(bundle: Bundle, found: Sequence[Delivery]) -> dict[str, str]:
    """Copy the missing parts to several hosts at a time. By name of each host that does not have
    them all now, or cannot be deployed without another member of its engine group that does not, a
    sentence that says why."""

    def problem(each: Delivery) -> str:
        try:
            _deliver(bundle, each)
        except (BundleError, RemoteError) as error:
            return str(error)
        except OSError as error:
            return f"{each.target.name}: {error.strerror or error}"
        return ""

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        problems = [*pool.map(problem, found)]
    lacking = {each.target.name: why for each, why in zip(found, problems, strict=True) if why}
    return {each.target.name: why for each in found if (why := _why_not(each.target, lacking))}


def _why_not(target: SiteHost, lacking: Mapping[str, str]) -> str:
    """Members of an engine group wait for each other."""
    if target.name in lacking:
        return lacking[target.name]
    names = target.settings.engine_group.names if target.settings.member else ()
    without = [name for name in names if name in lacking]
    group = " and ".join(without)
    return f"{target.name}: is in one engine group with {group}" if without else ""


def _deliver(bundle: Bundle, each: Delivery) -> None:
    """Copy the missing parts to a host. Raises BundleError or RemoteError with a sentence."""
    name, reached = each.target.name, each.remote
    small = [part for part in each.parts if not part.path.startswith(f"{IMAGES}/")]
    images = [part for part in each.parts if part.path.startswith(f"{IMAGES}/")]
    total = sum(part.bytes for part in each.parts)
    typer.echo(f"{name}: copying {len(each.parts)} parts, {gib(total)}")
    own = [(path, text.encode()) for path, text in apt_files().items()]
    contents = [(part.path, part.bytes, bundle.read(part)) for part in small]
    reached.feed(UNPACK_SCRIPT, stream(contents))
    for path, data in own:
        reached.run(f"mkdir -p $(dirname {path}) && cat >{path}", data)
    if damaged := parse_check(reached.run(CHECK_SCRIPT, checksums(small))):
        raise BundleError(f"{name}: {min(damaged)} was damaged in transfer: rerun the command")
    for part in images:
        begun = each.state.files.get(f"{part.path}.part", 0)
        skip = begun if begun <= part.bytes else 0
        reached.feed(append_script(part, keep=skip > 0), bundle.read(part, skip))
        reached.run(finish_script(part))
    if script := keys_script(bundle.manifest.below(KEYS)):
        reached.run(script)


def deploy(inventory: str, delivered: Sequence[Delivery]) -> None:
    """Deploy with an apt that uses only the bundle. Raises BundleError if the deploy fails."""
    limits = [word for each in delivered for word in ("--limit", each.target.name)]
    environment = json.dumps({"APT_CONFIG": APT_CONF})
    if run_pyinfra(inventory, DEPLOY, "-y", *limits, "--data", f"_env={environment}"):
        raise BundleError(
            "the deploy failed; see the lines above for the reason. The copied parts stay on the"
            " hosts for the next llmhost bundle apply"
        )
    for each in delivered:
        each.remote.run(REMOVE_SCRIPT)
