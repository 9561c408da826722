"""/etc/hosts: names that a component needs, in its own block. Pure."""

from collections.abc import Iterator, Mapping

from llmhost.system.block import with_block, without_block

PATH = "/etc/hosts"


def with_entries(text: str, entries: Mapping[str, str], component: str) -> str:
    """The file with one line for each name; `entries` are addresses by name.

    Each component has its own block; without entries it is removed.
    """
    first = f"# BEGIN llmhost {component}: edit the inventory ({component}_*) instead"
    last = f"# END llmhost {component}"
    if not entries:
        return without_block(text, first, last)
    lines = [f"{address}\t{name}" for name, address in entries.items()]
    return with_block(text, "\n".join([first, *lines, last, ""]))


def conflicts(text: str, entries: Mapping[str, str], component: str) -> list[str]:
    """Sentences about lines outside the block that map a declared name to another address.

    The resolver uses the first line with a name (hosts(5)) and would ignore the declared one. The
    host's own name may map to a loopback address or to its own: both reach the host.
    """
    return [
        f"{PATH} maps {name} to {address}, and {entries[name]} is declared:"
        " remove that line, then deploy again"
        for address, name in _entries(with_entries(text, {}, component))
        if name in entries
        and address != entries[name]
        and not any(each.startswith("127.") for each in (address, entries[name]))
    ]


def reasons(text: str, entries: Mapping[str, str], component: str) -> list[str]:
    """Which names are not as declared; empty if all are."""
    wanted = with_entries(text, entries, component)
    if wanted == text:
        return []
    there = set(_entries(text))
    missing = [n for n, address in entries.items() if (address, n) not in there]
    sentences = [f"{PATH} lacks {name} for {entries[name]}" for name in missing]
    return sentences or [f"{PATH} contains names that are no longer declared"]


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Address and name of every line."""
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        yield from ((address, name) for name in names)
