"""Old names of options: they work for one minor version, and say what to write."""

import logging
from typing import Any

import pytest

from llmhost.inventory import renames
from llmhost.inventory.problem import Problem, SettingsError
from llmhost.inventory.reader import known_keys, read_settings
from llmhost.inventory.renames import Rename, warn_of_old_names
from llmhost.settings import RECORDS, Settings

MODEL = {"name": "m", "source": "https://mirror.example/m.gguf", "sha256": "ab" * 32}
OLD = Rename("docker_root", "docker_data_root", since="0.2", removed="0.3")


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "version", lambda _package: "0.2.0")
    renames._warn.cache_clear()


def read(data: dict[str, Any]) -> Settings:
    return read_settings(data, rules=lambda _settings: ())


def problems(data: dict[str, Any]) -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        read(data)
    return list(caught.value.problems)


@pytest.mark.parametrize("name", ["quantisation", "quantization"])
def test_both_names_of_a_key_of_a_record_work(name: str) -> None:
    (model,) = read({"models": [MODEL | {name: "Q4_K_M"}]}).models
    assert model.quantization == "Q4_K_M"


def test_both_names_of_an_option_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "RENAMES", (OLD,))
    assert read({"docker_root": "/data"}).docker.data_root == "/data"
    assert read({"docker_data_root": "/data"}).docker.data_root == "/data"


def test_old_and_new_name_together_are_a_mistake() -> None:
    (told,) = problems({"models": [MODEL | {"quantisation": "Q8_0", "quantization": "Q4_K_M"}]})
    assert told.sentence("llm") == (
        "llm: models[0].quantisation: is the old name of quantization, and both are set;"
        " remove quantisation"
    )


@pytest.mark.parametrize("version", ["0.3.0", "0.4", "1.0.0"])
def test_old_name_is_refused_from_its_removal_on(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(renames, "version", lambda _package: version)
    (told,) = problems({"models": [MODEL | {"quantisation": "Q8_0"}]})
    assert told.sentence("llm") == (
        "llm: models[0].quantisation: was renamed to quantization in version 0.2;"
        " write quantization"
    )
    assert read({"models": [MODEL | {"quantization": "Q8_0"}]}).models


def test_mistake_under_the_old_name_is_reported_under_the_new_one() -> None:
    (told,) = problems({"models": [MODEL | {"quantisation": 4}]})
    assert told.key == "models[0].quantization"


def test_warning_is_one_line_for_each_host_and_option(caplog: pytest.LogCaptureFixture) -> None:
    models = [MODEL | {"name": name, "quantisation": "Q8_0"} for name in ("a", "b")]
    with caplog.at_level(logging.WARNING, logger="llmhost"):
        for _ in range(2):
            warn_of_old_names("one", {"models": models})
            warn_of_old_names("two", {"models": models})
            warn_of_old_names("three", {"models": [MODEL | {"quantization": "Q8_0"}]})
    assert [record.getMessage() for record in caplog.records] == [
        f"warning: {host}: models[0].quantisation: was renamed to quantization;"
        " version 0.3 will refuse the old name; write quantization"
        for host in ("one", "two")
    ]


def test_every_entry_leads_to_an_option_that_exists() -> None:
    for rename in renames.RENAMES:
        key, _, option = rename.new.rpartition("[].")
        assert option in (RECORDS[key].model_fields if key else known_keys()), rename
        assert rename.old not in (rename.new, "")
        since, removed = rename.since.split("."), rename.removed.split(".")
        assert (since[0], int(since[1]) + 1) == (removed[0], int(removed[1])), rename
