"""Checks of application servers, for programs on them."""

import re
from typing import Any

import pytest

from llmhost.checks.applies import does_not_apply
from llmhost.options.app_server import AppServer
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def options(settings: Settings) -> AppServer:
    if settings.app_server.api_key is None:
        does_not_apply("this host is not an application server")
    return settings.app_server


def ask(host: Any, options: AppServer, header: str) -> str:
    """Status of a request for the models with the variables of the environment file."""
    return str(
        host.check_output(
            f"set -a; . {options.environment_file}; curl -sS -m 20 -o /dev/null"
            f" -w '%{{http_code}}' -H {header} $OPENAI_BASE_URL/models"
        )
    )


def test_environment_is_readable_only_by_its_owner(host: Any, options: AppServer) -> None:
    file = host.file(options.environment_file)
    assert (file.mode, file.user) == (0o600, options.environment_owner)
    read = f"setpriv --reuid=65534 --clear-groups cat {options.environment_file}"
    assert host.run(read).failed, "another user must not read the key"


def test_environment_has_all_variables_that_a_program_needs(host: Any, options: AppServer) -> None:
    names = host.check_output(f"sed -n 's/^\\([A-Z_]*\\)=..*/\\1/p' {options.environment_file}")
    needed = {"OLLAMA_BASE_URL", "OLLAMA_AUTH_HEADER", "OPENAI_BASE_URL", "OPENAI_API_KEY"}
    assert needed <= set(names.split())


def test_llm_server_resolves_by_its_name(host: Any, options: AppServer) -> None:
    found = host.check_output(f"getent ahosts {options.llm_name}").split()
    assert found
    if options.llm_address:
        assert str(options.llm_address) in found


def test_llm_server_admits_only_requests_with_the_key(host: Any, options: AppServer) -> None:
    if not host.exists("curl"):
        pytest.skip("this host has no curl for the request")
    assert ask(host, options, '"Authorization: $OLLAMA_AUTH_HEADER"') == "200"
    assert ask(host, options, '"X-Nothing: 1"') == "401"
    assert ask(host, options, '"Authorization: Bearer llmhost-0"') == "401"


def test_certificate_is_trusted_by_the_system(host: Any, options: AppServer) -> None:
    url = host.check_output(f"sed -n 's/^OPENAI_BASE_URL=//p' {options.environment_file}")
    if not url.startswith("https://"):
        does_not_apply("the gateway speaks plain HTTP")
    if not host.exists("openssl"):
        pytest.skip("this host has no openssl for the request")
    where = re.sub(r"^https://([^/]+)/.*$", r"\1", url)
    name = where.rpartition(":")[0].strip("[]")
    verify = f"openssl s_client -connect {where} -servername {name} -verify_return_error </dev/null"
    assert host.run(verify).succeeded
    assert host.run(verify.replace(f"-servername {name}", "-servername other.invalid")).failed
