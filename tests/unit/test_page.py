"""The page of `llmhost page`: what it says, and that it is only text."""

import subprocess
import sys
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llmhost.status.page import page, standing, verdict
from tests.unit.page_sample import ATTENTION, FINE, PLANS, SCRIPT, overview

LLMHOST = Path(sys.executable).with_name("llmhost")
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Read(HTMLParser):
    """Tags, ids, targets of links, and visible text; tags must be balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "srcset", "action"):
                self.links.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data.split()


def test_page_is_self_contained_and_escapes_what_servers_say() -> None:
    text = page(overview())
    found = Read(text)
    assert not found.tags & {"script", "link", "img", "iframe", "form", "object"}
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.links)
    assert len({*found.ids}) == len(found.ids)
    assert "default-src 'none'" in text and "url(" not in text and "@import" not in text
    # Each of the sample's texts is there, as text.
    assert SCRIPT not in text and " ".join(found.words).count(SCRIPT) == 6


def test_page_has_what_the_commands_print() -> None:
    words = " ".join(Read(page(overview())).words)
    for text in (
        "2 of 3 hosts are broken or unknown",
        "stopped by eva on 2026-12-01",
        "GPU 0 NVIDIA GeForce RTX 5070 Ti 12.0 GiB of 16.0 GiB",
        "87 % busy",
        "– of 22.5 GiB",
        "4.0 GiB of 100.0 GiB free",
        "key of batch until 2027-03-01",
        "Configure nginx",
        "A deploy would change nothing.",
        "cannot be read",
        "no valid key",
        "123456",
        "1 passed 1 failed 1 not checked",
        "deploy again",
    ):
        assert text in words, text


def test_states_of_hosts_and_of_the_site() -> None:
    whole = overview()
    assert [standing(whole, host)[1] for host in whole.hosts] == [
        "is fine",
        "1 check failed",
        "cannot be read",
    ]
    assert (whole.failed, whole.needs_attention) == (True, True)
    fine = overview(hosts=[asdict(FINE)], plans=PLANS[:1], checks=None)
    assert verdict(fine) == ("good", "The host is fine")
    assert (fine.failed, fine.needs_attention) == (False, False)
    drifted = overview(hosts=[asdict(ATTENTION)], plans=PLANS[1:2], checks=None)
    assert standing(drifted, drifted.hosts[0]) == ("warn", "has drifted")
    assert (drifted.failed, drifted.needs_attention) == (False, True)


def test_part_that_is_missing_is_named() -> None:
    part = overview(usage={}, plans=(), checks=None, problems={"usage by day": "no gateway"})
    words = " ".join(Read(page(part)).words)
    for text in ("usage by day: no gateway", "Usage is not known", "was not compared"):
        assert text in words, text
    assert part.failed


@pytest.mark.parametrize("text", ["llm_servers = [\n", "llm_servers = [('a', {'servces': []})]\n"])
def test_mistaken_inventory_is_reported_and_no_page_is_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "site.py").write_text(text)
    command = [str(LLMHOST), "page", str(tmp_path / "site.py"), "-o", str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 1 and len(ran.stderr.splitlines()) == 1, ran.stderr
    assert ran.stderr.startswith("error: ") and not (tmp_path / "out").exists()
