"""/etc/hosts: names that a component needs, in a block of its own. Pure."""

from collections.abc import Iterator, Mapping

from llmhost.system.block import with_block, without_block

PATH = "/etc/hosts"


def with_entries(text: str, entries: Mapping[str, str], component: str) -> str:
    """The file with one line for each name; `entries` are addresses by name.

    Each component has a block of its own; without entries it is taken out.
    """
    first = f"# BEGIN llmhost {component}: edit the inventory ({component}_*) instead"
    last = f"# END llmhost {component}"
    if not entries:
        return without_block(text, first, last)
    lines = [f"{address}\t{name}" for name, address in entries.items()]
    return with_block(text, "\n".join([first, *lines, last, ""]))


def conflicts(text: str, entries: Mapping[str, str], component: str) -> list[str]:
    """Sentences on lines outside the block that give a name of ours another address.

    The resolver takes the first line that names a host (hosts(5)), so ours would go unheard. The
    host's own name may stand for the loopback or for its address: both lead to itself.
    """
    return [
        f"{PATH} gives {name} the address {address} already, and {entries[name]} is declared:"
        " take that line out, then deploy again"
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
    told = [f"{PATH} lacks {name} for {entries[name]}" for name in missing]
    return told or [f"{PATH} holds names that are not declared any more"]


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Address and name of every line."""
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        yield from ((address, name) for name in names)
