"""A receipt changes when the truth does, and not with the time."""

import json
from dataclasses import replace

import pytest

from llmhost.facts.receipt import Receipts
from llmhost.history.receipt import KEPT, ReceiptState, content, entries, misplaced, reasons
from llmhost.system.files import Absent, File, PathState

PATH = "/var/lib/llmhost/receipt.json"
RECORD = {"settings": "12ab", "models": {"tiny": "34cd"}}
FOUND = ReceiptState({"nginx": "1.26"}, {"llmhost/llamacpp:1": "sha256:1"}, "", ())


def _text(found: ReceiptState = FOUND, time: str = "2026-01-02T03:04:05Z") -> str:
    return json.dumps({"time": time, **content(RECORD, found)})


def test_first_receipt_is_written() -> None:
    assert reasons(content(RECORD, FOUND), "") == ["there is no receipt yet"]


def test_same_truth_at_another_time_is_not_written_again() -> None:
    assert reasons(content(RECORD, FOUND), _text(time="2001-01-01T00:00:00Z")) == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (replace(FOUND, versions={"nginx": "1.28"}), "versions"),
        (replace(FOUND, images={}), "images"),
    ],
)
def test_other_truth_is_told_by_its_key(found: ReceiptState, told: str) -> None:
    assert reasons(content(RECORD, found), _text()) == [f"the receipt differs in {told}"]


def test_receipt_of_an_older_llmhost_with_other_keys_is_replaced() -> None:
    old = json.dumps({**json.loads(_text()), "gone": 1})
    assert reasons(content(RECORD, FOUND), old) == ["the receipt differs in gone"]


@pytest.mark.parametrize("broken", ["{", "[]", "17"])
def test_unreadable_receipt_is_replaced_and_not_kept(broken: str) -> None:
    assert reasons(content(RECORD, FOUND), broken) == ["the receipt cannot be read"]
    made = entries(PATH, _text(), replace(FOUND, newest=broken))
    assert [entry.path for entry in made if isinstance(entry, File)] == [PATH]


def test_receipt_before_is_kept_under_its_time_and_the_oldest_go() -> None:
    earlier = tuple(f"2025-01-{day:02}T000000Z.json" for day in range(1, KEPT + 1))
    found = replace(FOUND, newest=_text(), earlier=earlier)
    made = entries(PATH, _text(time="2026-02-03T04:05:06Z"), found)
    files = {entry.path: entry for entry in made if isinstance(entry, File)}
    kept = files["/var/lib/llmhost/receipts/2026-01-02T030405Z.json"]
    assert kept.content == _text()
    assert json.loads(files[PATH].content)["time"] == "2026-02-03T04:05:06Z"
    gone = [entry.path for entry in made if isinstance(entry, Absent)]
    assert gone == [f"/var/lib/llmhost/receipts/{earlier[0]}"]


def test_time_of_a_forged_receipt_names_no_other_path() -> None:
    forged = json.dumps({"time": "../../etc/passwd"})
    made = entries(PATH, _text(), replace(FOUND, newest=forged))
    assert {entry.path for entry in made if isinstance(entry, File)} == {
        PATH,
        "/var/lib/llmhost/receipts/etcpasswd.json",
    }


def test_fact_reads_versions_images_and_receipts() -> None:
    output = [
        "version kernel 6.12.1",
        "version docker.io 26.1.5+dfsg1-9",
        "image|sha256:1|12ab|llmhost/llamacpp:1 ",
        "earlier 2025.json",
        f"path regular file|root|root|644|1.5|{PATH}",
        f"path {'ab' * 32}  {PATH}",
        "newest e30K",
    ]
    assert Receipts().process(output) == ReceiptState(
        {"kernel": "6.12.1", "docker.io": "26.1.5+dfsg1-9"},
        {"llmhost/llamacpp:1": "sha256:1"},
        "{}\n",
        ("2025.json",),
        paths={PATH: PathState("file", "root", "root", "0644", 1.5, "ab" * 32)},
    )


@pytest.mark.parametrize(
    ("path", "state", "told"),
    [
        (PATH, {"mode": "0666"}, "has mode 0666"),
        (PATH, {"owner": "nobody"}, "belongs to nobody:root"),
        ("/var/lib/llmhost", {"mode": "0777"}, "has mode 0777"),
    ],
)
def test_true_receipt_that_others_may_write_is_told(
    path: str, state: dict[str, str], told: str
) -> None:
    paths = {
        PATH: PathState("file", "root", "root", "0644", 0.0, File(PATH, _text()).sha256),
        "/var/lib/llmhost": PathState("directory", "root", "root", "0755", 0.0),
    }
    found = replace(FOUND, newest=_text(), paths=paths)
    assert misplaced(PATH, found) == {}
    paths[path] = replace(paths[path], **state)  # type: ignore[arg-type]
    assert list(misplaced(PATH, found).values()) == [f"{path} {told}"]
