"""One mistake of every kind in every option, taken from the settings themselves."""

import math
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, get_args

import pytest

from llmhost.inventory.problem import Problem, SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.options.base import Section
from llmhost.services import catalogue
from llmhost.settings import RECORDS, component_sections

SECRETS = (
    "sk-proj-4f9a8b7c6d5e4f3a2b1c",
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "hunter2-hunter2",
    "ab" * 32,
)
EVALUATION = {"perplexity": "evaluation.txt", "at_most": 1.05}
CLIENT = {"name": "app", "sha256": "a" * 64}

WRONG: dict[str, Any] = {
    "True": True,
    "False": False,
    "zero": 0,
    "one": 1,
    "negative": -1,
    "fraction": 1.5,
    "huge": 10**5000,
    "NaN": math.nan,
    "infinity": math.inf,
    "empty text": "",
    "blank text": "  ",
    "two lines": "one\ntwo",
    "space at the end": "word ",
    "NUL": "a\0b",
    "surrogate": "\ud800",
    "digits in text": "8080",
    "Arabic digits": "٨٠٨٠",
    "unknown word": "nonsense",
    "network in text": "10.0.0.0/8",
    "bytes": b"8080",
    "empty list": [],
    "list of lists": [[]],
    "nested": (((1,),),),
    "repeated": ["10.0.0.1", "10.0.0.1"],
    "set": {"a", "b"},
    "mapping": {"a": "b"},
    "mapping of numbers": {1: 2},
    "mapping of itself": {"a": {"b": {"c": []}}},
    "path": Path("/x"),
    "date": date(2027, 1, 31),
    "object": object(),
    "function": len,
} | {f"secret {number}": secret for number, secret in enumerate(SECRETS)}

PYDANTIC = re.compile(
    r"(?i)input should|valid (integer|string|number|boolean|tuple|dict)|constrained|lax-or-strict"
    r"|tuple\[|list\[|dict\[|union|literal|value error|pydantic|validation|string should|annotated"
)
REGULAR_EXPRESSION = re.compile(r"\\[dwsSW]|\[a-z|\[0-9|\^|\$|\(\?|\{\d+(,\d*)?\}")


def records_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from records_in(argument)


def good(record: type[Section]) -> dict[str, Any]:
    """A valid record, so that the one mistake in it is the only one."""
    known: dict[str, dict[str, Any]] = {
        "Model": {"name": "m", "source": "https://mirror.example/m.gguf", "sha256": "ab" * 32},
        "ApiClient": CLIENT
        | {"previous_sha256": "b" * 64, "previous_until": "2040-01-01T00:00:00Z"},
        "App": {
            "name": "web",
            "image": f"docker.io/web@sha256:{'ab' * 32}",
            "container_port": 3000,
            "health": ["true"],
            "port": 8100,
        },
        "LoraAdapter": {"name": "style", "source": "style"},
        "FirewallRule": {"port": 9100, "sources": ["10.0.0.0/8"]},
        "Target": {"name": "backend", "port": 3001},
        "Destination": {"networks": ["10.0.0.5"], "port": 5432},
        "UpstreamServer": {"name": "llm-1", "address": "10.0.0.1"},
        "UpstreamModel": {"name": "brain", "service": "ollama"},
        "ModelFile": {"path": "config.json", "sha256": "ab" * 32},
        "AppRoute": {"path": "/ask"},
        "Derive": {"quantize": "Q8_0", "evaluate": [EVALUATION]},
        "Evaluation": EVALUATION,
        "Onnx": {"precision": "int8"},
        "Compress": {"scheme": "FP8_DYNAMIC"},
        "Parameters": {},
        "TrainingJob": {
            "name": "house",
            "model": "brain",
            "base": "hf:maker/brain",
            "revision": "ab" * 20,
            "files": [{"path": "model.safetensors", "sha256": "ab" * 32}],
            "data": ["handbook"],
            "evaluate": {"at_most": 0.9},
        },
        "TrainingEvaluation": {"at_most": 0.9},
        "Shape": {
            "weights_bytes": 1,
            "cache_values": 1,
            "hidden_size": 1,
            "vocabulary_size": 1,
        },
    }
    return known[record.__name__]


def places(section: type[Section]) -> Iterator[tuple[str, ...]]:
    """Paths of all options of a section, those of nested records included."""
    for name, field in section.model_fields.items():
        yield (name,)
        for record in records_in(field.annotation):
            many = "tuple" in str(field.annotation)
            for place in places(record):
                yield (name, record.__name__, "[]" if many else "", *place)


def options() -> Iterator[tuple[str, tuple[str, ...]]]:
    """`("docker", ("data_root",))`: a section, service or list of records, and a path in it."""
    classes = component_sections() | {n: s.options for n, s in catalogue().items()} | RECORDS
    for name, section in classes.items():
        yield from ((name, place) for place in places(section))


def nested(place: tuple[str, ...], value: Any) -> Any:
    """A value at a path within records."""
    if not place:
        return value
    name, *rest = place
    if len(rest) < 3:
        return {name: value}
    record_name, many, *inner = rest
    [record] = [each for each in Section.__subclasses__() if each.__name__ == record_name]
    holder = good(record) | nested(tuple(inner), value)
    return {name: [holder] if many else holder}


def inventory(name: str, place: tuple[str, ...], value: Any) -> dict[str, Any]:
    if name in RECORDS:
        return {name: [good(RECORDS[name]) | nested(place, value)]}
    (option, given), *_ = nested(place, value).items()
    services = {"services": [name]} if name in catalogue() else {}
    return {f"{name}_{option}": given, **services}


def key(name: str, place: tuple[str, ...]) -> str:
    parts = [name, "[0]"] if name in RECORDS else [f"{name}_"]
    joint = "." if name in RECORDS else ""
    for part in place:
        if part == "[]":
            parts.append("[0]")
            joint = "."
        elif part and not part[0].isupper():
            parts.append(f"{joint}{part}")
            joint = "."
    return "".join(parts)


def problems(data: dict[str, Any]) -> list[Problem]:
    """Mistakes of the options themselves, without the rules that join several."""
    try:
        read_settings(data, rules=lambda _settings: ())
    except SettingsError as error:
        return list(error.problems)
    return []


OPTIONS = list(options())


def check(sentence: str, secret: object) -> None:
    assert "\n" not in sentence and sentence.isprintable() and len(sentence) < 900, sentence
    assert not PYDANTIC.search(sentence), sentence
    assert not REGULAR_EXPRESSION.search(sentence), sentence
    example = re.search(
        r"such as .|'[a-z_]+' or '|True or False|did you mean|the keys are", sentence
    )
    assert example or re.search(r"; (keep|remove|write|declare|add|give|run:) ", sentence), sentence
    if isinstance(secret, str) and secret in SECRETS:
        assert secret not in sentence and secret[:12] not in sentence, sentence


def test_every_option_is_among_them() -> None:
    keys = {key(name, place) for name, place in OPTIONS}
    assert {
        "gateway_port",
        "firewall_rules[0].sources",
        "models[0].parameters.top_k",
        "models[0].files[0].sha256",
        "apps[0].routes[0].methods",
        "vllm_gpu_fraction",
        "api_clients[0].expires",
    } <= keys
    assert len(keys) > 280


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
def test_wrong_value_is_one_problem_in_one_sentence(value: Any) -> None:
    accepted = 0
    for name, place in OPTIONS:
        found = problems(inventory(name, place, value))
        accepted += not found
        if not found:
            continue
        where = key(name, place)
        assert len({problem.key for problem in found}) == len(found), found
        assert len(found) == 1 or isinstance(value, list | tuple | dict), (where, found)
        for problem in found:
            about = problem.key.startswith(where) or where.startswith(problem.key)
            assert about, (where, problem)
            check(problem.sentence("host"), value)
    assert accepted < len(OPTIONS) / 2, "hardly anything refuses it"


NUMBERS = ("NaN", "infinity", "huge", "bytes", "set", "object", "function", "surrogate", "NUL")


@pytest.mark.parametrize("what", NUMBERS)
def test_no_option_takes_what_nothing_can_mean(what: str) -> None:
    taken = [
        key(name, place)
        for name, place in OPTIONS
        if not problems(inventory(name, place, WRONG[what]))
    ]
    assert taken == []


def kept(name: str, place: tuple[str, ...], value: Any) -> Any:
    settings = read_settings(inventory(name, place, value), rules=lambda _settings: ())
    if name in RECORDS:
        found: Any = getattr(settings, name)[0]
    else:
        found = settings.service_options.get(name) or getattr(settings, name)
    for part in place:
        if part == "[]":
            found = found[0]
        elif part and not part[0].isupper():
            found = getattr(found, part)
    return found


@pytest.mark.parametrize("what", ["True", "one", "zero", "digits in text", "empty text"])
def test_what_is_taken_is_kept_as_it_is(what: str) -> None:
    """True never becomes 1, 1 never True, and digits in quotes never a number."""
    value = WRONG[what]
    for name, place in OPTIONS:
        if not problems(inventory(name, place, value)):
            found = kept(name, place, value)
            same = type(found) in (type(value), float) if type(value) is int else True
            assert same and (found == value or str(found) == value), (key(name, place), found)
            assert isinstance(found, bool) == isinstance(value, bool), (key(name, place), found)


def test_text_is_no_list() -> None:
    """'10.0.0.0/8' is not ten networks."""
    for name, place in OPTIONS:
        data = inventory(name, place, "10.0.0.0/8")
        if not problems(data):
            assert not isinstance(kept(name, place, "10.0.0.0/8"), tuple), key(name, place)


@pytest.mark.parametrize("name", ["services", *RECORDS])
@pytest.mark.parametrize("what", [what for what in WRONG if what != "empty list"])
def test_list_of_another_shape_is_one_problem(name: str, what: str) -> None:
    value = WRONG[what]
    found = problems({name: value})
    assert len(found) == len(value) if isinstance(value, list | tuple) else 1, found
    for problem in found:
        check(problem.sentence("host"), value)


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_missing_and_unknown_keys_of_a_record_name_what_to_write(record: type[Section]) -> None:
    (name,) = (name for name, each in RECORDS.items() if each is record)
    for option, field in record.model_fields.items():
        if field.is_required():
            rest = {key: value for key, value in good(record).items() if key != option}
            (found,) = problems({name: [rest]})
            assert found.key == f"{name}[0].{option}" and found.fix.startswith("add ")
            check(found.sentence("host"), None)
    (found,) = problems({name: [good(record) | {"nmae": 1}]})
    assert found.fix == "did you mean name?"


def test_key_that_is_a_secret_is_not_repeated() -> None:
    for secret in SECRETS:
        for data in (
            {"a" * 60 + secret: 1},
            {"apps": [good(RECORDS["apps"]) | {"environment": {secret: "x"}}]},
        ):
            for problem in problems(data):
                assert secret not in problem.sentence("host")
