"""Certificates: issued, renewed in time, and refused where they do not fit."""

import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmhost.cli.tls import app
from llmhost.facts.nginx import Nginx
from llmhost.gateway.authority import open_authority
from llmhost.gateway.nginx import NginxState, Tree
from llmhost.gateway.tls import Tls, certified, name_files, served_names
from llmhost.gateway.x509 import Authority, names_in, new_authority, pair_faults, why_renew
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.system.files import PathState

NOW = datetime.now(UTC)
NAMES = ("llm-server", "192.168.0.100", "fd00::1")
KEY_MARK = b"-----BEGIN PRIVATE KEY-----"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return new_authority(NOW)


def issued(authority: Authority, names: tuple[str, ...] = NAMES, days: int = 730) -> bytes:
    return authority.issue(names, NOW, days)


def test_certificate_holds_up_to_openssl(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    (tmp_path / "tls.pem").write_bytes(issued(authority))
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"]
    for option, name in (("-verify_hostname", "llm-server"), ("-verify_ip", "192.168.0.100")):
        arguments = [*command, str(tmp_path / "ca.crt"), option, name, str(tmp_path / "tls.pem")]
        result = subprocess.run(arguments, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    wrong = [*command, str(tmp_path / "ca.crt"), "-verify_hostname", "other", "tls.pem"]
    assert subprocess.run(wrong, capture_output=True, cwd=tmp_path).returncode != 0


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], NginxState]:
    """Reads what is installed as tls.pem, with the host's own shell and openssl."""

    def state(pem: bytes) -> NginxState:
        (tmp_path / "tls.pem").write_bytes(pem)
        command = Nginx().command([], str(tmp_path / "none"), 1, str(tmp_path / "tls.pem"))
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
        assert "PRIVATE" not in done.stdout
        return Nginx().process(done.stdout.splitlines())

    return state


def test_certificate_is_read_with_its_key_only(
    authority: Authority, read: Callable[[bytes], NginxState]
) -> None:
    pem, other = issued(authority), issued(authority)
    certificate, key = pem[: pem.index(KEY_MARK)], pem[pem.index(KEY_MARK) :]
    assert read(pem).certificate == certificate
    assert read(certificate + authority.certificate + key).certificate == certificate
    for wrong in (certificate, key, other[: other.index(KEY_MARK)] + key, b"", pem[:99] + key):
        assert read(wrong).certificate == b"", wrong


def test_names_and_addresses_are_in_the_certificate(authority: Authority) -> None:
    assert names_in(issued(authority)) == set(NAMES)


def test_fitting_certificate_stays(authority: Authority) -> None:
    pem = issued(authority)
    assert why_renew(pem, authority.certificate, NAMES, NOW, 90) == ""
    assert why_renew(pem, authority.certificate, NAMES[:1], NOW, 90) == ""


@pytest.mark.parametrize(
    ("names", "later", "reason"),
    [
        ((*NAMES, "new-name"), timedelta(), "is not for new-name"),
        (NAMES, timedelta(days=641), "expires on"),
        (NAMES, timedelta(days=800), "expires on"),
    ],
)
def test_certificate_is_renewed_for_a_reason(
    authority: Authority, names: tuple[str, ...], later: timedelta, reason: str
) -> None:
    told = why_renew(issued(authority), authority.certificate, names, NOW + later, 90)
    assert reason in told


@pytest.mark.parametrize("pem", [b"", b"rubbish", None])
def test_foreign_certificate_is_replaced(authority: Authority, pem: bytes | None) -> None:
    pem = issued(new_authority(NOW)) if pem is None else pem
    assert "not issued by this site's authority" in why_renew(
        pem, authority.certificate, NAMES, NOW, 90
    )


def test_authority_is_made_once_and_privately(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "ca"
    first = open_authority(directory, create=True)
    assert open_authority(directory, create=True) == first
    assert stat.S_IMODE((directory / "ca.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in directory.iterdir()) == ["ca.crt", "ca.key"]


def test_dry_run_makes_no_authority(tmp_path: Path) -> None:
    open_authority(tmp_path / "ca", create=False)
    assert list(tmp_path.iterdir()) == []


def test_run_that_was_killed_between_key_and_certificate_is_healed(tmp_path: Path) -> None:
    first = open_authority(tmp_path, create=True)
    (tmp_path / "ca.crt").unlink()
    healed = open_authority(tmp_path, create=True)
    assert healed.key == first.key and (tmp_path / "ca.crt").read_bytes() == healed.certificate
    assert why_renew(issued(first), healed.certificate, NAMES, NOW, 90) == ""


def tree_of(state: NginxState, authority: Authority) -> tuple[Tree, str]:
    tls = Tls(("0.0.0.0:8080",), ("llm-server",), Path("/ca"))
    tree = Tree((), "/etc/nginx/llmhost", 8079)
    return certified(tree, tls, ("llm-server",), state, authority)


def installed(pem: bytes, **changes: Any) -> NginxState:
    found = {"kind": "file", "owner": "root", "group": "root", "mode": "0600", "modified": 0.0}
    state = PathState(**{**found, "sha256": "1" * 64, **changes})
    return NginxState({"/etc/nginx/llmhost/tls.pem": state}, certificate=pem)


def test_installed_certificate_is_kept_and_counts_for_the_digest(authority: Authority) -> None:
    tree, reason = tree_of(installed(issued(authority, ("llm-server",))), authority)
    assert reason == "" and tree.files == ()
    other, _ = tree_of(installed(issued(authority, ("llm-server",)), sha256="2" * 64), authority)
    assert tree.digest != other.digest


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"mode": "0644"}, "could have read"), ({"owner": "www-data"}, "could have read")],
)
def test_exposed_key_is_replaced(
    authority: Authority, changes: dict[str, str], reason: str
) -> None:
    tree, told = tree_of(installed(issued(authority, ("llm-server",)), **changes), authority)
    assert reason in told
    [fresh] = tree.files
    assert fresh.mode == "0600" and KEY_MARK in fresh.data


def test_certificate_without_its_key_is_replaced(authority: Authority) -> None:
    assert tree_of(installed(b""), authority)[1] == "there is no certificate yet"


def test_undeclared_names_are_those_of_the_host() -> None:
    state = NginxState(names=("LLM", "10.0.0.7", "fd00::7"))
    names = served_names(Tls(()), "@local", state)
    assert names == ("10.0.0.7", "fd00::7", "llm")
    assert served_names(Tls((), ("a.example",)), "llm-server", state) == ("a.example",)


def test_old_nginx_is_not_asked_for_what_it_lacks() -> None:
    tls, tree = Tls(("[::]:8080",)), Tree((), "/etc/nginx/llmhost", 8079)
    for version, rejects in {"1.18.0": False, "1.22.1": True, "1.26.3": True, "": True}.items():
        text = name_files(tree, tls, ["fd00::7"], version)[1].data.decode()
        assert ("ssl_reject_handshake on" in text) == rejects


def site_pair(authority: Authority, tmp_path: Path, **changes: bytes) -> dict[str, Any]:
    certificate, key = issued(authority).split(KEY_MARK)
    pair = {"certificate": certificate, "certificate_key": KEY_MARK + key, **changes}
    paths = {}
    for option, content in pair.items():
        (tmp_path / option).write_bytes(content)
        paths[f"gateway_{option}"] = str(tmp_path / option)
    return {"gateway_tls": "files", "gateway_names": ["llm-server"], **paths}


def told(data: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read_settings(data)
    return [problem.sentence("host") for problem in caught.value.problems]


def test_certificate_of_the_site_is_taken(authority: Authority, tmp_path: Path) -> None:
    read_settings(site_pair(authority, tmp_path))


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({"certificate": b"x"}, {}, "gateway_certificate: contains no certificate in PEM format"),
        ({"certificate_key": b"x"}, {}, "gateway_certificate_key: contains no PEM private key"),
        ({}, {"gateway_certificate": "/nonexistent"}, "cannot be read: No such file"),
        ({}, {"gateway_certificate": None}, "gateway_certificate: is missing"),
        (
            {},
            {"gateway_names": ["no name"]},
            "is text of 7 characters; write a host name or",
        ),
        ({}, {"gateway_names": ["other"]}, "is not for other, which gateway_names lists"),
    ],
)
def test_mistake_in_the_site_s_certificate_is_a_sentence(
    authority: Authority,
    tmp_path: Path,
    changes: dict[str, bytes],
    options: dict[str, Any],
    sentence: str,
) -> None:
    lines = told({**site_pair(authority, tmp_path, **changes), **options})
    assert any(sentence in line for line in lines), lines


def test_key_of_another_certificate_is_told(authority: Authority, tmp_path: Path) -> None:
    other = KEY_MARK + issued(authority).split(KEY_MARK)[1]
    [line] = told(site_pair(authority, tmp_path, certificate_key=other))
    assert "gateway_certificate_key: does not belong to the certificate" in line
    assert "PRIVATE" not in line


def test_ended_certificate_of_the_site_is_told(authority: Authority) -> None:
    certificate, key = issued(authority, days=1).split(KEY_MARK)
    faults = pair_faults(certificate, KEY_MARK + key, (), NOW + timedelta(days=2))
    assert "expired on" in faults["certificate"]


def test_command_prints_the_certificate_and_never_the_key(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["ca", str(tmp_path / "ca")])
    assert result.exit_code == 0, result.output
    assert result.stdout == (tmp_path / "ca/ca.crt").read_text()
    assert "valid for 3649 more days" in result.stderr and "SHA-256 " in result.stderr
    assert "PRIVATE" not in result.output
    assert CliRunner().invoke(app, ["ca", str(tmp_path / "ca")]).stdout == result.stdout


def test_command_tells_what_is_wrong_with_the_directory(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("a file")
    result = CliRunner().invoke(app, ["ca", str(tmp_path / "ca")])
    assert result.exit_code == 1 and "cannot be used" in result.output
