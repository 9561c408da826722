"""The gateway's TLS under the real nginx, as clients and scanners meet it."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from llmhost.gateway.x509 import new_authority
from tests.doubles.engine import Engine
from tests.integration.local_gateway import LocalGateway, free_ports, local_gateway
from tests.integration.test_gateway import ALICE, bearer, inventory


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(free_ports(1)[0]) as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    directory = tmp_path_factory.mktemp("tls")
    tls = {"gateway_tls": "ca", "gateway_ca_directory": str(directory / "ca")}
    with local_gateway(inventory(engine, **tls), directory / "nginx") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def old_gateway(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    """As it is written for Ubuntu 22.04, though this nginx may be a newer one."""
    directory = tmp_path_factory.mktemp("old-tls")
    tls = {"gateway_tls": "ca", "gateway_ca_directory": str(directory / "ca")}
    data = inventory(engine, **tls)
    with local_gateway(data, directory / "nginx", version="1.18.0") as gateway:
        yield gateway


def trust(gateway: LocalGateway) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(gateway.settings.gateway.ca_certificate))


def handshake(gateway: LocalGateway, context: ssl.SSLContext, name: str | None) -> ssl.SSLSocket:
    port = gateway.settings.gateway.port
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    return context.wrap_socket(plain, server_hostname=name)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_client_with_the_authority_reaches_the_engine(gateway: LocalGateway, host: str) -> None:
    url = f"{gateway.settings.gateway.url(host)}/v1/models"
    assert url.startswith("https://")
    assert httpx.get(url, headers=bearer(ALICE), verify=trust(gateway)).status_code == 200
    assert httpx.get(url, verify=trust(gateway)).status_code == 401


def test_client_without_the_authority_turns_away(gateway: LocalGateway) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{gateway.url}/v1/models")


def test_unknown_name_gets_no_certificate(gateway: LocalGateway) -> None:
    careless = ssl.create_default_context()
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        handshake(gateway, careless, "other.example")
    with handshake(gateway, careless, "localhost") as known:
        assert known.getpeercert(binary_form=True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_unknown_name_gets_no_certificate_of_an_old_nginx_either(
    old_gateway: LocalGateway, version: ssl.TLSVersion
) -> None:
    written = (old_gateway.directory / "llmhost/other-names.conf").read_text()
    assert "ssl_reject_handshake" not in written
    careless = ssl.create_default_context()
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    careless.minimum_version = careless.maximum_version = version
    with pytest.raises(ssl.SSLError, match="ALERT_INTERNAL_ERROR"):
        handshake(old_gateway, careless, "other.example")
    for known in ("localhost", None):
        with handshake(old_gateway, careless, known) as connection:
            assert connection.getpeercert(binary_form=True)


def test_old_nginx_serves_and_refuses_as_a_new_one(old_gateway: LocalGateway) -> None:
    url = f"{old_gateway.settings.gateway.url('localhost')}/v1/models"
    assert httpx.get(url, headers=bearer(ALICE), verify=trust(old_gateway)).status_code == 200
    headers = {**bearer(ALICE), "Host": "other.example"}
    answer = httpx.get(url, headers=headers, verify=trust(old_gateway))
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "name_unknown")
    assert "other.example" not in old_gateway.log_texts


def test_other_name_in_the_request_is_refused(gateway: LocalGateway) -> None:
    headers = {**bearer(ALICE), "Host": "other.example"}
    answer = httpx.get(f"{gateway.url}/v1/models", headers=headers, verify=trust(gateway))
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "name_unknown")


@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        (ssl.TLSVersion.TLSv1_3, True),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_1, False),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_only_modern_protocols_are_spoken(
    gateway: LocalGateway, version: ssl.TLSVersion, accepted: bool
) -> None:
    context = trust(gateway)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    if accepted:
        with handshake(gateway, context, "localhost") as connection:
            assert connection.version() == version.name.replace("_", ".")
    else:
        with pytest.raises(ssl.SSLError):
            handshake(gateway, context, "localhost")


def test_weak_ciphers_are_not_spoken(gateway: LocalGateway) -> None:
    context = trust(gateway)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        handshake(gateway, context, "localhost")


def test_plain_http_is_told_to_use_tls(gateway: LocalGateway, engine: Engine) -> None:
    reached = len(engine.requests)
    plain = gateway.url.replace("https://", "http://")
    answer = httpx.get(f"{plain}/v1/models", headers=bearer(ALICE))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "tls_missing")
    assert len(engine.requests) == reached


def test_stream_flows_over_http2(gateway: LocalGateway) -> None:
    command = ["curl", "-sSN", "--http2", "--cacert", str(gateway.settings.gateway.ca_certificate)]
    command += ["-H", f"Authorization: Bearer {ALICE}", "-w", "%{http_version}"]
    command += ["-d", '{"stream": true, "chunks": 3}', f"{gateway.url}/v1/chat/completions"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.count("data: ") == 4 and said.endswith("\n2")


def test_certificate_of_the_site_serves_too(engine: Engine, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = new_authority(now)
    pem = authority.issue(["localhost", "127.0.0.1"], now, 30)
    certificate, key = pem.split(b"-----BEGIN PRIVATE KEY-----")
    (tmp_path / "site.crt").write_bytes(certificate)
    (tmp_path / "site.key").write_bytes(b"-----BEGIN PRIVATE KEY-----" + key)
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    data = inventory(
        engine,
        gateway_tls="files",
        gateway_certificate=str(tmp_path / "site.crt"),
        gateway_certificate_key=str(tmp_path / "site.key"),
    )
    with local_gateway(data, tmp_path / "nginx") as gateway:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        url = f"{gateway.url}/v1/models"
        assert httpx.get(url, headers=bearer(ALICE), verify=context).status_code == 200
