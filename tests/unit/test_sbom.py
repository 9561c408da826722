"""`llmhost sbom`: what is read on a host, the documents, their licenses and differences."""

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from rich.console import Console

from llmhost.bundle.key import PUBLIC, signing_key
from llmhost.cli import sbom as cli
from llmhost.docs.schemas import schema
from llmhost.inventory.site import SiteHost
from llmhost.inventory.site_reader import HostData, no_rules, no_site_rules, read_site
from llmhost.resources import FILES
from llmhost.sbom.changes import SbomChanges, compare
from llmhost.sbom.document import document, unread
from llmhost.sbom.host import host_document
from llmhost.sbom.licences import LicenceUse, as_csv, components_of, licence_table, spdx
from tests.unit.model_files import write_gguf

ROOT = Path(__file__).parents[2]
LLMHOST = Path(sys.executable).with_name("llmhost")
READ = FILES / "sbom/read.py"

ALPINE = """\
C:Q1abc=
P:musl
V:1.2.5-r0
A:x86_64
L:MIT

P:busybox
V:1.36.1-r29
A:x86_64
L:GPL-2.0-only

"""
NODE = {
    "react": {"name": "react", "version": "19.1.0", "license": "MIT"},
    "@scope/old": {"name": "@scope/old", "version": "0.1.0", "licenses": [{"type": "BSD"}]},
    "broken": {"name": "broken"},
}


def read(function: str, *arguments: str) -> Any:
    """What a function of the host's script returns, in a process of its own."""
    code = (
        "import json, runpy, sys\n"
        f"print(json.dumps(runpy.run_path({str(READ)!r})[{function!r}](*sys.argv[1:])))"
    )
    command = [sys.executable, "-I", "-c", code, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def test_packages_of_a_host_are_those_that_dpkg_lists() -> None:
    ran = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status}\t${Package}\t${Version}\n"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = (line.split("\t") for line in ran.stdout.splitlines())
    listed = {(name, version) for status, name, version in rows if status == "installed"}
    found = read("main", "llmhost")
    assert found["containers"] == [] and found["errors"] == {}
    packages = found["host"]["packages"]
    assert {(each["name"], each["version"]) for each in packages} == listed
    assert {each["kind"] for each in packages} == {"deb"}
    licences = {each["name"]: each["licences"] for each in packages}
    assert "GPL-2+" in licences["adduser"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The files of a container, with links that lead out of it."""
    root = tmp_path / "root"
    packages = root / "opt/venv/lib/python3.12/site-packages"
    for name in ("typer", "httpx", "pytest"):
        whole = metadata.distribution(name)
        [file] = [file for file in whole.files or () if str(file).endswith("dist-info/METADATA")]
        place = packages / file
        place.parent.mkdir(parents=True)
        shutil.copy(str(file.locate()), place)
    for name, about_it in NODE.items():
        place = root / "srv/node_modules" / name
        place.mkdir(parents=True)
        (place / "package.json").write_text(json.dumps(about_it))
    (root / "srv/package.json").write_text('{"name": "own", "version": "1"}')
    (root / "lib/apk/db").mkdir(parents=True)
    (root / "lib/apk/db/installed").write_text(ALPINE)
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text('ID=alpine\nVERSION_ID=3.21.0\nPRETTY_NAME="Alpine"\n')
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/status").symlink_to("/outside/status")
    os.mkfifo(root / "lib/apk/pipe")
    (packages / "evil.dist-info").mkdir()
    os.mkfifo(packages / "evil.dist-info/METADATA")
    return root


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")


@needs_root
def test_packages_of_a_container_are_read_inside_its_root(tree: Path, tmp_path: Path) -> None:
    outside = Path("/var/lib/dpkg/status")
    assert outside.is_file()  # a link to it must not be followed on the host
    (tree / "var/lib/dpkg/status").unlink()
    (tree / "var/lib/dpkg/status").symlink_to(outside)
    (tree / "etc/escape").symlink_to(tmp_path)
    found = read("confined", str(tree))
    assert found["os"]["ID"] == "alpine"
    kinds = {(each["kind"], each["name"]): each for each in found["packages"]}
    python = {name for kind, name in kinds if kind == "pypi"}
    assert python == {"typer", "httpx", "pytest"}
    assert {name for kind, name in kinds if kind == "npm"} == {"react", "@scope/old"}
    assert {name for kind, name in kinds if kind == "apk"} == {"musl", "busybox"}
    assert not [name for kind, name in kinds if kind == "deb"]
    for name in python:
        assert kinds["pypi", name]["version"] == metadata.version(name)
    assert kinds["npm", "@scope/old"]["licences"] == ["BSD"]
    assert kinds["apk", "musl"]["licences"] == ["MIT"]


def rpm_database(tree: Path, data: bytes) -> None:
    (tree / "var/lib/rpm").mkdir()
    (tree / "var/lib/rpm/rpmdb.sqlite").write_bytes(data)


@needs_root
def test_rpm_packages_are_read_from_rpm_s_own_database(tree: Path) -> None:
    # Written by rpm 4.18.0 of Debian 12: `rpm -i --justdb` of two packages without files.
    packed = (Path(__file__).parent / "data/rpmdb.sqlite.gz").read_bytes()
    rpm_database(tree, gzip.decompress(packed))
    found = read("confined", str(tree))
    assert found["unread"] == ""
    packages = {each["name"]: each for each in found["packages"] if each["kind"] == "rpm"}
    assert {name: each["version"] for name, each in packages.items()} == {
        "sample-lib": "2.4-3.el9",
        "sample-tool": "1:2.4-3.el9",
    }
    assert packages["sample-tool"]["licences"] == ["GPLv2+ and MIT"]
    assert packages["sample-lib"]["architecture"] == "noarch"


@needs_root
@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0" + b"x" * 4096])
def test_broken_rpm_database_is_named(tree: Path, data: bytes) -> None:
    rpm_database(tree, data)
    assert read("confined", str(tree))["unread"] == "its RPM packages could not be read"


def site(tmp_path: Path, **more: Any) -> SiteHost:
    gguf = tmp_path / "m.gguf"
    write_gguf(gguf, {}, {"general.file_type": 15})
    files = [{"path": f"model-0000{n}-of-00002.safetensors", "sha256": str(n) * 64} for n in (1, 2)]
    models = [
        {"name": "small", "source": str(gguf), "sha256": "a" * 64},
        {
            "name": "big",
            "service": "vllm",
            "source": "hf:Qwen/Qwen3-8B",
            "revision": "c" * 40,
            "files": files,
            "base_models": ["Qwen/Qwen3-8B-Base"],
            "licence": "apache-2.0",
        },
    ]
    data = {"services": ["llamacpp", "vllm"], "models": models, **more}
    host = HostData("llm-server", data, ["llm_servers"])
    return read_site([host], rules=no_rules, site_rules=no_site_rules)["llm-server"]


def found() -> dict[str, Any]:
    """A host as the script prints it."""
    bash = {"kind": "deb", "name": "bash", "version": "5.2.37-2+b2", "architecture": "amd64"}
    httpx = {"kind": "pypi", "name": "httpx", "version": "0.28.1", "architecture": ""}
    scoped = {"kind": "npm", "name": "@a/b", "version": "1.0.0", "architecture": ""}
    debian = {"ID": "debian", "VERSION_ID": "13", "PRETTY_NAME": "Debian GNU/Linux 13"}
    container = {
        "service": "llamacpp",
        "image": "llmhost/llamacpp:0123456789abcdef",
        "id": "sha256:" + "e" * 64,
        "digests": [],
        "os": debian,
        "packages": [
            {**bash, "licences": ["GPL-3+", "Expat"]},
            {**httpx, "licences": ["BSD-3-Clause"]},
            {**scoped, "licences": ["MIT OR Apache-2.0"]},
        ],
        "unread": "",
    }
    host = {"os": debian, "packages": [{**bash, "licences": ["GPL-3+"]}], "unread": ""}
    errors = {"vllm": "No such container"}
    return {"kernel": "6.12.0", "host": host, "containers": [container], "errors": errors}


def written(tmp_path: Path, about_host: dict[str, Any] | None = None, **more: Any) -> Any:
    return json.loads(host_document(site(tmp_path, **more), about_host or found()))


def by_reference(document: Any) -> dict[str, Any]:
    return {each["bom-ref"]: each for each in components_of(document)}


def test_document_is_valid_by_the_strict_schema(tmp_path: Path) -> None:
    text = host_document(site(tmp_path), found())
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    broken = text.replace('"machine-learning-model"', '"model"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None


def test_document_of_this_machine_is_valid() -> None:
    host = read("main", "llmhost")
    text = document("here", host, [], "1")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert len([*components_of(json.loads(text))]) == 1 + len(host["host"]["packages"])


def test_models_have_hashes_licences_lineage_and_quantization(tmp_path: Path) -> None:
    components = by_reference(written(tmp_path))
    small, big = components["model:small"], components["model:big"]
    assert small["type"] == big["type"] == "machine-learning-model"
    assert small["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert small["modelCard"]["modelParameters"]["architectureFamily"] == "llama"
    assert small["modelCard"]["properties"] == [{"name": "llmhost:quantization", "value": "Q4_K_M"}]
    assert big["version"] == "c" * 40
    assert big["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert [each["name"] for each in big["pedigree"]["ancestors"]] == ["Qwen/Qwen3-8B-Base"]
    assert [each["hashes"][0]["content"] for each in big["components"]] == ["1" * 64, "2" * 64]
    assert big["modelCard"]["modelParameters"]["task"] == "text-generation"


def test_containers_have_their_packages_and_the_engine_they_were_built_from(tmp_path: Path) -> None:
    engine = "ghcr.io/ggml-org/llama.cpp:server-b9999@sha256:" + "d" * 64
    components = by_reference(written(tmp_path, llamacpp_image=engine))
    container = components["service:llamacpp"]
    assert container["hashes"] == [{"alg": "SHA-256", "content": "e" * 64}]
    [ancestor] = container["pedigree"]["ancestors"]
    assert ancestor["version"] == "server-b9999"
    assert ancestor["purl"].startswith("pkg:oci/llama.cpp@sha256:" + "d" * 64)
    urls = {each["purl"] for each in container["components"]}
    assert urls == {
        "pkg:deb/debian/bash@5.2.37-2%2Bb2?arch=amd64&distro=debian-13",
        "pkg:pypi/httpx@0.28.1",
        "pkg:npm/%40a/b@1.0.0",
    }


def test_epoch_of_an_rpm_package_is_a_qualifier(tmp_path: Path) -> None:
    about_host = found()
    package = {"kind": "rpm", "name": "tool", "version": "1:2.4-3.el9", "architecture": "x86_64"}
    about_host["containers"][0]["packages"] = [{**package, "licences": []}]
    about_host["containers"][0]["os"] = {"ID": "centos", "VERSION_ID": "9"}
    [tool] = by_reference(written(tmp_path, about_host))["service:llamacpp"]["components"]
    assert tool["purl"] == "pkg:rpm/centos/tool@2.4-3.el9?arch=x86_64&distro=centos-9&epoch=1"


def test_what_could_not_be_read_is_named(tmp_path: Path) -> None:
    assert unread(found()) == {"vllm": "No such container"}
    properties = written(tmp_path)["metadata"]["properties"]
    assert {"name": "llmhost:unread:vllm", "value": "No such container"} in properties


def test_documents_of_an_unchanged_host_differ_in_serial_number_and_time_only(
    tmp_path: Path,
) -> None:
    first, second = written(tmp_path), written(tmp_path)
    for each in (first, second):
        del each["serialNumber"], each["metadata"]["timestamp"]
    assert first == second


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("GPL-2+", "GPL-2.0-or-later"),
        ("LGPL-2.1", "LGPL-2.1-only"),
        ("AGPL-3+", "AGPL-3.0-or-later"),
        ("GPL-3.0-only", "GPL-3.0-only"),
        ("GPLv2+", "GPL-2.0-or-later"),
        ("ASL 2.0", "Apache-2.0"),
        ("Expat", "MIT"),
        ("Apache Software License", "Apache-2.0"),
        ("GPL-2+ with AutoConf exception", "GPL-2+ with AutoConf exception"),
        ("OSF", "OSF"),
    ],
)
def test_licence_names_of_distributions_become_those_of_spdx(name: str, identifier: str) -> None:
    assert spdx(name) == identifier


def test_licences_are_gathered_in_one_table(tmp_path: Path) -> None:
    document = written(tmp_path)
    rows = {row.licence: row.components for row in licence_table([document])}
    assert rows["GPL-3.0-or-later"] == ("bash 5.2.37-2+b2",)
    assert rows["MIT OR Apache-2.0"] == ("@a/b 1.0.0",)
    assert "small " + "a" * 12 in rows["unknown"]
    lines = as_csv({"llm-server": document}).splitlines()
    assert "Apache-2.0,machine-learning-model,big," + "c" * 40 + ",llm-server" in lines


def test_table_of_licences_shows_names_and_counts_on_a_narrow_terminal() -> None:
    uses = [LicenceUse("a license " * 20, tuple(f"package-{n} 1.0" for n in range(42)))]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(cli._licence_table(uses))
    row = console.export_text().splitlines()[1]
    assert row.startswith(" a license a license") and " 42 " in row and "package-0 1.0" in row
    assert len(row) <= 80


def test_difference_names_what_was_added_removed_and_changed(tmp_path: Path) -> None:
    before, changed = found(), found()
    changed["host"]["packages"][0]["version"] = "5.3"
    packages = changed["containers"][0]["packages"]
    packages[1]["licences"] = ["MIT"]
    del packages[2]
    packages.append({**packages[1], "name": "new"})
    changed["containers"][0]["id"] = "sha256:" + "f" * 64
    differences = compare(written(tmp_path, before), written(tmp_path, changed)).changes
    assert [(each.place, each.kind, each.name, each.change) for each in differences] == [
        ("host", "deb", "bash", "version"),
        ("llamacpp", "container", "llmhost/llamacpp", "version"),
        ("llamacpp", "npm", "@a/b", "removed"),
        ("llamacpp", "pypi", "httpx", "licence"),
        ("llamacpp", "pypi", "new", "added"),
    ]
    assert compare(written(tmp_path), written(tmp_path)).changes == ()


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [str(LLMHOST), "sbom", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_files_are_signed_with_the_key_of_bundles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    text = host_document(site(tmp_path), found())
    cli._write(tmp_path / "sbom", {"a": text, "@ssh/b": text}, signing_key(keys).sign)
    written = ["@ssh-b.cdx.json", "@ssh-b.cdx.json.sig", "a.cdx.json", "a.cdx.json.sig"]
    assert sorted(each.name for each in (tmp_path / "sbom").iterdir()) == [*written, "licences.csv"]
    file = tmp_path / "sbom/a.cdx.json"
    verified = run("verify", file, "--key", keys / PUBLIC)
    assert verified.returncode == 0, verified.stderr
    openssl = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(keys / PUBLIC), "-rawin"]
    signature = ["-sigfile", f"{file}.sig", "-in", str(file)]
    assert (
        "Success" in subprocess.run([*openssl, *signature], capture_output=True, text=True).stdout
    )
    file.write_text(text + " ")
    altered = run("verify", file, "--key", keys / PUBLIC)
    assert (altered.returncode, "was altered" in altered.stderr) == (1, True)


def test_diff_exits_with_2_if_something_changed(tmp_path: Path) -> None:
    changed = found()
    changed["host"]["packages"].clear()
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    files[0].write_text(host_document(site(tmp_path), found()))
    files[1].write_text(host_document(site(tmp_path), changed))
    assert run("diff", files[0], files[0]).returncode == 0
    ran = run("diff", *files)
    assert (ran.returncode, ran.stderr) == (2, "")
    assert re.search(r"host +deb +bash +removed", ran.stdout)
    printed = json.loads(run("diff", *files, "--json").stdout)
    described = json.loads((ROOT / "docs/sbom-diff.schema.json").read_text())
    assert described == schema(SbomChanges)
    jsonschema_rs.validator_for(described).validate(printed)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(None, "No such file or directory"), ("{", "is not JSON"), ("{}", "is not a CycloneDX")],
)
def test_file_that_is_no_document_is_an_error_in_one_sentence(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    file = tmp_path / "a.json"
    if text is not None:
        file.write_text(text)
    ran = run("diff", file, file)
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: ") and sentence in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_first_word_without_a_subcommand_is_an_inventory(tmp_path: Path) -> None:
    ran = run(tmp_path / "missing.py")
    assert (ran.returncode, "missing.py not found" in ran.stderr) == (1, True)
