"""Reading an inventory: every mistake is told, at once, without its value."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import known_keys, read_settings

CLIENT = {"name": "app", "sha256": "a" * 64}


def mistakes(data: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read_settings(data)
    return [problem.sentence("host") for problem in caught.value.problems]


def test_empty_inventory_gives_the_defaults() -> None:
    settings = read_settings({})
    assert settings.docker.log_max_size_mib == 50
    assert settings.services == ()


def test_prefix_becomes_section() -> None:
    assert read_settings({"docker_data_root": "/data"}).docker.data_root == "/data"


def test_keys_of_pyinfra_are_left_alone() -> None:
    read_settings({"ssh_user": "root", "_sudo": True})


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            {"dcoker_data_root": "/x"},
            "host: dcoker_data_root: unknown key; did you mean docker_dat",
        ),
        ({"docker_data_rot": "/x"}, "did you mean docker_data_root?"),
        # nginx looks for the marks of stopped services there.
        ({"stack_directory": "/srv/a$b"}, "write an absolute path on the host, without spaces and"),
        ({"stack_directory": '/srv/a"b'}, "write an absolute path on the host, without spaces and"),
        ({"zzz": 1}, "host: zzz: unknown key; llmhost docs options lists them all"),
        (
            {"gateway_port": "many"},
            "is 'many'; write a port number from 1 to 65535, such as 8080",
        ),
        ({"gateway_port": 70000}, "is 70000; write a port number from 1 to 65535"),
        ({"services": ["lamacpp"]}, "'lamacpp' is not a service; did you mean llamacpp?"),
        (
            {"services": "llamacpp"},
            "is text of 8 characters; write a list, such as ['llamacpp']",
        ),
        (
            {"api_clients": "me"},
            "is text of 2 characters; write a list, such as [{",
        ),
        ({"api_clients": [{"name": "a"}]}, "api_clients[0].sha256"),
        (
            {"system_timezone": "Mars/Base"},
            "is 'Mars/Base'; write a time zone",
        ),
        ({"nvidia_driver_branch": 585}, "is 585; write 'auto' or one of the driver branches 520,"),
        ({"nvidia_driver_branch": 580.0}, "is 580.0; write 'auto' or one of"),
        ({"vllm_timezone": "Mars/Base", "services": ["vllm"]}, "vllm_timezone: is 'Mars/Base';"),
        ({"gateway_port": True}, "gateway_port: is True; write a port number from 1 to 65535"),
        ({"gateway_port": 22}, "firewall_ssh_port and gateway_port are both 22"),
        ({"api_clients": [CLIENT, CLIENT]}, "'app' is declared 2 times"),
    ],
)
def test_mistake_is_told_with_key_and_fix(data: dict[str, Any], sentence: str) -> None:
    assert any(sentence in told for told in mistakes(data)), mistakes(data)


@pytest.mark.parametrize("branch", ["auto", 535, 580, 595, 610])
def test_known_driver_branch_is_taken(branch: object) -> None:
    assert read_settings({"nvidia_driver_branch": branch}).nvidia_driver.branch == branch


def test_mistake_in_the_pins_of_a_model_is_no_crash(tmp_path: Path) -> None:
    """The lock file is joined with the record before the record is checked."""
    source = "hf:org/repo/file.gguf"
    pins = {"revision": "1" * 40, "sha256": "2" * 64, "base_models": ["a/b"]}
    (tmp_path / "lock.json").write_text(json.dumps({"schema": 1, "models": {source: pins}}))
    model = {"name": "m", "source": source, "base_models": 5}
    told = mistakes({"stack_models_lock": str(tmp_path / "lock.json"), "models": [model]})
    assert any("models[0].base_models: is a number; write a list" in each for each in told), told


def test_all_mistakes_are_told_at_once() -> None:
    told = mistakes({"nonsense": 1, "docker_data_root": "relative", "gateway_port": 22})
    assert len(told) == 3


def test_missing_model_file_is_told() -> None:
    model = {"name": "m", "source": "/nonexistent/m.gguf", "sha256": "0" * 64}
    told = mistakes({"services": ["llamacpp"], "models": [model], "api_clients": [CLIENT]})
    assert any("its source does not exist on the controller" in sentence for sentence in told)


def test_services_without_clients_are_a_mistake() -> None:
    assert any("no client may call" in told for told in mistakes({"services": ["llamacpp"]}))


def test_values_are_never_shown() -> None:
    secret = "hunter2-hunter2"
    data = {"docker_version": [secret], "api_clients": [{"name": "x", "sha256": secret}]}
    assert secret not in "\n".join(mistakes(data))


def test_equal_settings_have_equal_digests() -> None:
    assert read_settings({}).digest == read_settings({}).digest
    assert read_settings({}).digest != read_settings({"docker_data_root": "/data"}).digest


def test_known_keys_are_readable_back() -> None:
    assert {"docker_data_root", "llamacpp_port", "services", "models"} <= set(known_keys())
