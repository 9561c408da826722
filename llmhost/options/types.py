"""The types of options, with their descriptions in messages and in docs/options.md.

Numbers in quotes are refused, True is not a number, and text is not empty and does not begin or end
with a space.
"""

import re
from collections.abc import Callable
from datetime import date, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, TypeVar
from zoneinfo import ZoneInfo

from llmhost.options.kind import ADDRESS, NUMERIC, WORD, Choice, Kind, Listed, Mapped, Mistake
from llmhost.options.names import CLIENT
from llmhost.options.networks import NETWORK, disjoint
from llmhost.options.networks import IpNetwork as IpNetwork
from llmhost.secret import is_reference

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

OneOf = Annotated[T, Choice()]
"""A word: `OneOf[Literal["ca", "off"]]`."""
Items = Annotated[tuple[T, ...], Listed()]
"""A list without repeated items."""
SomeItems = Annotated[tuple[T, ...], Listed(least=1)]
"""The same, with at least one item."""
AnyItems = Annotated[tuple[T, ...], Listed(repeats=True)]
"""A list whose items may be repeated."""
Table = Annotated[dict[K, V], Mapped()]
"""A mapping."""


def whole(
    low: int, high: int, of: str = "", example: int | None = None, what: str = "a whole number"
) -> Kind:
    """A whole number within limits."""

    def read(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError
        return int(value)

    expected = f"{what} {f'of {of} ' if of else ''}from {low} to {high}"
    return Kind(read, expected, max(low, 1) if example is None else example, NUMERIC)


def number(
    low: float, high: float, of: str = "", example: float = 1.0, *, above: bool = False
) -> Kind:
    """A number within limits; `above`: greater than the lower one."""

    def read(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        if not low <= value <= high or (above and value == low):
            raise ValueError
        return float(value) + 0.0  # -0.0 becomes 0.0

    limits = f"above {low} and up to {high}" if above else f"from {low} to {high}"
    return Kind(read, f"a number {f'of {of} ' if of else ''}{limits}", example, NUMERIC)


def text(pattern: str, expected: str, example: str, shown: re.Pattern[str] | None = None) -> Kind:
    """Text that matches a regular expression completely. It is compiled on first use."""

    def read(value: object) -> object:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError
        value.encode()  # refuses half of a surrogate pair
        return str(value)

    return Kind(read, expected, example, shown)


def parsed(
    kind: type[Any] | tuple[type[Any], ...],
    parse: Callable[[str], object],
    expected: str,
    example: str,
    shown: re.Pattern[str] | None = None,
) -> Kind:
    """Text that a function parses, or a value that it would return."""

    def read(value: object) -> object:
        if isinstance(value, kind):
            return value
        if not isinstance(value, str):
            raise TypeError
        return parse(value)

    return Kind(read, expected, example, shown)


def _flag(value: object) -> object:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _path(value: str) -> Path:
    if not value.strip() or value != value.strip() or not value.isprintable():
        raise ValueError
    return Path(value)


def _unscoped(value: str) -> object:
    """nginx knows no interfaces in addresses."""
    if "%" in value:
        raise ValueError
    return ip_address(value)


def _time(value: str) -> datetime:
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise Mistake("has no time zone; add one, such as '2027-01-31T00:00:00+09:00'")
    return time


def _timezone(value: object) -> object:
    if not isinstance(value, str) or value.startswith(("posix", "right/")):
        raise ValueError  # aliases, which some hosts lack
    ZoneInfo(value)  # reading the whole list takes 0.1 s
    return value


def _host_name(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        if not _HOST_NAME.fullmatch(value.lower()):
            raise
        return value.lower()


def _reference(value: object) -> object:
    if isinstance(value, str) and not is_reference(value):
        raise Mistake(
            "is not a reference to a secret; write 'env:NAME' or 'file:PATH' (an environment"
            " variable or a file of the controller), never the secret itself"
        )
    if not isinstance(value, str):
        raise TypeError
    return value


_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.ASCII)
_DIGEST_EXAMPLE = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

Flag = Annotated[bool, Kind(_flag, "True or False", shown=WORD)]

# Numbers.
Port = Annotated[int, whole(1, 65535, "", 8080, "a port number")]
LocalPort = Annotated[int, whole(1024, 65535, "", 8081, "a port number")]
"""A port on 127.0.0.1 of the host, for a program without privileges."""
Count = Annotated[int, whole(1, 1_000_000)]
CountOrZero = Annotated[int, whole(0, 1_000_000, example=10)]
Threads = Annotated[int, whole(1, 4096, "threads", 4)]
Tokens = Annotated[int, whole(1, 2**24, "tokens", 4096)]
Mib = Annotated[int, whole(1, 2**20, "MiB", 64)]
Gib = Annotated[float, number(0, 2**20, "GiB", 16.0)]
SomeGib = Annotated[float, number(0, 2**20, "GiB", 16.0, above=True)]
Fraction = Annotated[float, number(0, 1, example=0.9, above=True)]
Seconds = Annotated[int, whole(1, 86_400, "seconds", 120)]
KeepSeconds = Annotated[int, whole(0, 31_536_000, "seconds", 300)]
"""How long to keep something: at most a year."""
LoadSeconds = Annotated[int, whole(10, 86_400, "seconds", 600)]
"""Maximum time to start."""
ConfirmSeconds = Annotated[int, whole(10, 600, "seconds", 60)]

# Addresses.
Date = Annotated[date, parsed(date, date.fromisoformat, "a date", "2026-12-31", ADDRESS)]
Network = Annotated[IpNetwork, NETWORK]
Networks = Annotated[tuple[Network, ...], Listed(least=1, check=disjoint)]
"""At least one network, none of them part of another."""
Ipv4Network = Annotated[
    IPv4Network,
    parsed(IPv4Network, IPv4Network, "an IPv4 network", "172.28.0.0/14", ADDRESS),
]
IpAddress = IPv4Address | IPv6Address
Address = Annotated[
    IpAddress, parsed((IPv4Address, IPv6Address), _unscoped, "an IP address", "10.0.0.1", ADDRESS)
]
NameServer = Annotated[
    IpAddress, parsed((IPv4Address, IPv6Address), ip_address, "an IP address", "10.0.0.1", ADDRESS)
]
"""Also with an interface, such as `fe80::1%eth0`."""
HostName = Annotated[
    str, parsed((), _host_name, "a host name or an IP address", "llm.example.com", ADDRESS)
]
"""In lower case; an address in its canonical form."""
Url = Annotated[
    str, text(r"https?://[^\s]+", "an http:// or https:// URL", "https://mirror.example.com")
]
RepositoryUrl = Annotated[
    str,
    text(
        r"https?://[^\s]*[^\s/]", "a URL without a slash at its end", "https://mirror.example.com"
    ),
]
EngineUrl = Annotated[
    str, text(r"https?://[\w.:\[\]/-]+", "an http:// or https:// URL", "http://vllm:8000/v1")
]
"""The URL of a service of the stack, or of one elsewhere."""
IndexUrl = Annotated[
    str,
    text(r"https?://[^\s@]+", "a URL without a user name", "https://mirror.example.com/simple"),
]
RedisUrl = Annotated[str, text(r"redis://[\w.:\[\]/-]+", "a redis:// URL", "redis://redis:6379/0")]
Origin = Annotated[
    str,
    text(r"https?://[\w.-]+(:\d+)?", "scheme, host and port of a URL", "https://llm-server:3000"),
]
Registry = Annotated[
    str,
    text(r"[\w.:\[\]-]+(/\d{1,3})?", "host and port of a registry", "registry.lan:5000", ADDRESS),
]

# Digests, versions and pinned images.
Sha256 = Annotated[str, text(r"[0-9a-f]{64}", "64 lower-case hexadecimal digits", _DIGEST_EXAMPLE)]
Commit = Annotated[
    str, text(r"[0-9a-f]{40}", "the 40 hexadecimal digits of a commit", _DIGEST_EXAMPLE[:40])
]
Fingerprint = Annotated[
    str,
    text(
        r"[0-9A-F]{40}",
        "40 upper-case hexadecimal digits without spaces",
        "9DC858229FC7DD38854AE2D88D81803C0EBFCD88",
    ),
]
IMAGE = text(
    r"[a-z0-9][\w.:/-]*@sha256:[0-9a-f]{64}",
    "an image with its digest, which `docker pull` prints",
    f"docker.io/library/redis:8@sha256:{_DIGEST_EXAMPLE}",
)
Image = Annotated[str, IMAGE]
PackageVersion = Annotated[
    str, text(r"\d[\w.+:~-]*", "the exact version of a package", "5:28.5.1-1~debian.12~bookworm")
]

# Names.
Name = Annotated[
    str,
    text(
        CLIENT,
        "a name of up to 63 lower-case letters, digits, dots, hyphens and underscores",
        "main-app",
        WORD,
    ),
]
SERVICE_NAME = text(r"[a-z0-9][a-z0-9_-]{0,62}", "the name of a service or an app", "ollama", WORD)
ServiceName = Annotated[str, SERVICE_NAME]
HostLabel = Annotated[
    str, text(_LABEL, "a host name without a domain, in lower case", "llm-server", WORD)
]
InventoryHost = Annotated[
    str, text(r"[\w.@:/-]+", "the name of a host of the inventory", "llm-server", WORD)
]
InterfaceName = Annotated[
    str,
    text(r"[A-Za-z0-9][\w.-]{0,14}", "the name of a network interface", "eth0", WORD),
]
UserName = Annotated[
    str, text(r"[a-z_][a-z0-9_-]{0,31}", "the name of a user of the host", "www-data", WORD)
]
Variable = Annotated[str, text(r"[A-Za-z_]\w*", "the name of an environment variable", "LOG_LEVEL")]
LINE = text(r"[^\s\x00](?:[^\r\n\x00]*[^\s\x00])?", "one line of text", "apache-2.0")
Line = Annotated[str, LINE]
FreeText = Annotated[str, text(r"(?s)[^\x00]+", "text that is not empty", "Be brief.")]
AnyText = Annotated[str, text(r"(?s)[^\x00]*", "text", "info")]

# Places.
HostPath = Annotated[
    str,
    text(r"/[^\s\x00]+", "an absolute path on the host, without spaces", "/var/lib/llmhost"),
]
LocalPath = Annotated[Path, parsed(Path, _path, "a path on the controller", "~/.config/llmhost/ca")]
LocalName = Annotated[
    str, text(r"\S(?:[^\r\n\x00]*\S)?", "a path on the controller", "models.lock.json")
]
SecretReference = Annotated[
    str, Kind(_reference, "a reference to a secret on the controller", "env:NAME")
]
"""`env:NAME`, or `file:PATH` relative to the working directory of pyinfra."""

# Sizes and times.
MemorySize = Annotated[
    str, text(r"[1-9]\d{0,8}[kmg]", "a size in k, m or g (KiB, MiB or GiB)", "16g", NUMERIC)
]
Time = Annotated[
    datetime,
    parsed(datetime, _time, "a time with a time zone", "2027-01-31T00:00:00+09:00"),
]
TimeZone = Annotated[
    str,
    Kind(
        _timezone,
        "a time zone from `timedatectl list-timezones`",
        "Asia/Seoul",
        re.compile(r"[A-Z][A-Za-z]{1,15}(/[A-Z][A-Za-z_-]{1,20}){0,2}"),
    ),
]
ModelName = Annotated[
    str, text(r"[\w./:-]+", "the name of a model of the service", "embedding", WORD)
]
OpenFiles = Annotated[int, whole(1024, 1_048_576, "open files", 65535)]
