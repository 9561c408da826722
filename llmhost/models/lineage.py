"""Names and ancestors of a model, from all sources.

Quantized files of one model are published under many accounts; metadata of the file and the model
card keep the names of its authors and of the models that it was derived from.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import yaml

_HUB = re.compile(
    r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co|ollama\.com)/|hf\.co/|hf:|ollama:)(?P<path>.+)"
)
_BASE_KEY = re.compile(r"general\.(?:base_model\.\d+|source)\.")

# DeepSeek, R, 1, Qwen, 2, …: the parts of a name.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")

OWN = "the file"
"""Value of `Ancestor.found_in` for the names of the model itself."""

# Front matter of a model card is a few KiB, but with the results of a benchmark more than a
# hundred: then only what these keys have is read.
_LONGEST_CARD = 64 * 1024
_STATED = ("license", "license_name", "base_model", "base_models")
_BEGIN = re.compile(r"\ufeff?\s*---[ \t]*\n")  # as huggingface_hub's REGEX_YAML_BLOCK

LICENCES = ", "
"""Between the licenses of a model that has several."""


@dataclass(frozen=True)
class Ancestor:
    """A model, by one of its names. `found_in` is the place of the name; empty if unknown."""

    name: str
    publisher: str
    found_in: str


@dataclass(frozen=True)
class Lineage:
    """A model with all its ancestors and licenses."""

    ancestors: tuple[Ancestor, ...] = ()
    licences: tuple[str, ...] = ()

    def __add__(self, other: "Lineage") -> "Lineage":
        return Lineage(self.ancestors + other.ancestors, self.licences + other.licences)

    def found_in(self, place: str) -> "Lineage":
        """The same, as found in this file, or in the model card beside it."""
        moved = (replace(a, found_in=_moved(a.found_in, place)) for a in self.ancestors)
        return Lineage(tuple(moved), self.licences)


def _moved(found_in: str, place: str) -> str:
    return found_in.replace(OWN, place) if OWN in found_in else f"{found_in} of {place}"


def words_of(name: str) -> list[str]:
    """The words of a name in lower case: `DeepSeek-R1` has `deep`, `seek`, `r`, `1`."""
    return [word.lower() for word in _WORD.findall(name)]


def compact(name: str) -> str:
    """A name without case and punctuation, to compare it with another spelling."""
    return "".join(words_of(name))


def declared(
    source: str, base_models: Iterable[str], licence: str | None, made_from: str = ""
) -> Lineage:
    """From the inventory: a hub's `PUBLISHER/NAME…`, a URL or a path, and the declared values. Of a
    made model also the source that it was made from."""
    origins = [_origin(source, "its source")]
    origins += [_origin(made_from, "the source that it is made from")] if made_from else []
    bases = [_reference(base, "base_models of the inventory") for base in base_models]
    return Lineage((*origins, *bases), tuple(licence.split(LICENCES)) if licence else ())


def _origin(source: str, found_in: str) -> Ancestor:
    if _HUB.match(source):
        return _reference(source, found_in)
    return Ancestor(source.rstrip("/").rpartition("/")[2], "", found_in)


def of_metadata(metadata: Mapping[str, object]) -> Lineage:
    """From the `general.*` metadata of a GGUF file."""
    texts = {key: value for key, value in metadata.items() if isinstance(value, str) and value}
    entries = {match[0] for key in texts if (match := _BASE_KEY.match(key))}
    ancestors = [each for entry in sorted(entries) for each in _entry(texts, entry)]
    licences = _licences(texts.get("general.license"), texts.get("general.license.name"))
    return Lineage((*_entry(texts, "general."), *ancestors), licences)


def of_card(text: str) -> Lineage:
    """From a model card: YAML front matter; empty if there is none."""
    begin = _BEGIN.match(text)
    front = text[begin.end() :].partition("\n---")[0] if begin else ""
    try:
        card = yaml.safe_load(front if len(front) <= _LONGEST_CARD else _stated(front))
    except (yaml.YAMLError, ValueError, RecursionError):
        return Lineage()
    if not isinstance(card, dict):
        return Lineage()
    bases = tuple(_reference(base, "the model card") for base in bases_in(card))
    return Lineage(bases, licences_in(card))


def bases_in(card: Mapping[str, object]) -> list[str]:
    """Names of the models that it was derived from, in the front matter of a model card."""
    return [*_texts(card.get("base_model")), *_texts(card.get("base_models"))]


def licences_in(card: Mapping[str, object]) -> tuple[str, ...]:
    """Licenses in the front matter of a model card."""
    return _licences(card.get("license"), card.get("license_name"))


def _stated(front: str) -> str:
    """The lines of the keys that are read."""
    kept, keeps = [], False
    for line in front.split("\n"):
        if line[:1].isalpha():
            keeps = line.partition(":")[0] in _STATED
        if keeps:
            kept.append(line)
    return "\n".join(kept)[:_LONGEST_CARD]


def _entry(texts: Mapping[str, str], prefix: str) -> Iterator[Ancestor]:
    """Names under `general.` (the model) or `general.base_model.N.` (an ancestor)."""
    place = OWN if prefix == "general." else f"{prefix[:-1]} of the file"
    organization = texts.get(f"{prefix}organization") or texts.get(f"{prefix}author", "")
    names = {texts.get(f"{prefix}name", ""), texts.get(f"{prefix}basename", "")}
    if organization or names != {""}:
        yield from (Ancestor(name, organization, place) for name in sorted(names))
    for key in ("repo_url", "url", "huggingface.repository"):
        if f"{prefix}{key}" in texts:
            yield _reference(texts[f"{prefix}{key}"], place)


def _reference(reference: str, found_in: str) -> Ancestor:
    """From `PUBLISHER/NAME`, with or without a hub's URL before it and a file name after it."""
    match = _HUB.match(reference)
    path = match["path"] if match else reference
    if "://" in path:
        return Ancestor(path, "", found_in)
    publisher, slash, name = path.strip("/").partition("/")
    return Ancestor(name, publisher, found_in) if slash else Ancestor(path, "", found_in)


def _licences(licence: object, name: object) -> tuple[str, ...]:
    """Licenses as a hub names them; one without an identifier is `other`, with its own name."""
    stated = _texts(licence)
    return tuple(_texts(name)) or tuple(stated) if stated == ["other"] else tuple(stated)


def _texts(value: object) -> list[str]:
    """A value that may be one text or a list of them."""
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str) and each]
