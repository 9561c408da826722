"""Whether the policy of a site allows a model and all of its ancestors."""

import re
from collections.abc import Iterator
from itertools import accumulate

from llmhost.models.lineage import Ancestor, Lineage, compact, words_of
from llmhost.options.policy import ModelPolicy

# Suffixes of account names that are not in names of models: `deepseek-ai` publishes DeepSeek.
_ACCOUNT_ENDINGS = frozenset({"ai", "hf", "inc", "lab", "labs", "org", "research", "team"})


def violations(policy: ModelPolicy, lineage: Lineage) -> Iterator[str]:
    """Why the policy refuses the model; each text continues a sentence that begins with its
    name."""
    for rule in policy.denied_publishers:
        for ancestor in _each_place_once(lineage, rule):
            yield f"is refused by policy_denied_publishers '{rule}': {_described(ancestor)}"
    if policy.allowed_publishers:
        yield from _not_allowed_publishers(policy, lineage)
    yield from _licences(policy, lineage)


def underivable(lineage: Lineage) -> str:
    """Why no other model may be derived; continues as `violations` do, and is empty if one may."""
    forbidding = (each for each in lineage.licences if "-nd" in each.lower())
    licence = next(forbidding, "")
    return f"has the license '{licence}', which allows no derived works" if licence else ""


def _each_place_once(lineage: Lineage, rule: str) -> list[Ancestor]:
    found = {each.found_in: each for each in lineage.ancestors if _matches(rule, each)}
    return list(found.values())


def _not_allowed_publishers(policy: ModelPolicy, lineage: Lineage) -> Iterator[str]:
    allowed = {compact(publisher) for publisher in policy.allowed_publishers}
    known = [each for each in lineage.ancestors if each.publisher]
    if not known:
        yield "has no known publisher, and policy_allowed_publishers requires one; add base_models"
    for ancestor in known:
        if compact(ancestor.publisher) not in allowed:
            yield f"is not covered by policy_allowed_publishers: {_described(ancestor)}"


def _licences(policy: ModelPolicy, lineage: Lineage) -> Iterator[str]:
    stated = dict.fromkeys(licence.lower() for licence in lineage.licences)
    denied = {licence.lower() for licence in policy.denied_licences}
    allowed = {licence.lower() for licence in policy.allowed_licences}
    for licence in stated:
        if licence in denied:
            yield f"is refused by policy_denied_licences: its licence is '{licence}'"
        if allowed and licence not in allowed:
            yield f"is not covered by policy_allowed_licences: its licence is '{licence}'"
    if allowed and not stated:
        yield "has no known license, and policy_allowed_licences requires one; add licence"


def _described(ancestor: Ancestor) -> str:
    name = "/".join(part for part in (ancestor.publisher, ancestor.name) if part)
    return f"'{name}', in {ancestor.found_in}"


def _matches(rule: str, ancestor: Ancestor) -> bool:
    words = words_of(rule)
    short = words[:-1] if words[-1:] and words[-1] in _ACCOUNT_ENDINGS else words
    publisher = compact(ancestor.publisher)
    return bool(words) and (
        publisher == "".join(words)
        or _contains(words_of(ancestor.publisher), short)
        or _contains(words_of(ancestor.name), short)
    )


def _contains(words: list[str], rule: list[str]) -> bool:
    """Whether some consecutive words, joined, are the rule: `Deep Seek` is `deepseek`."""
    wanted, joined = "".join(rule), "".join(words)
    edges = {0, *accumulate(len(word) for word in words)}
    places = (match.start() for match in re.finditer(f"(?={re.escape(wanted)})", joined))
    return any({place, place + len(wanted)} <= edges for place in places)
