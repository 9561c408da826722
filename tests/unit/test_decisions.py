"""Decision records have one header form, and the index lists each of them as it is."""

import re
from pathlib import Path

import pytest

RECORDS = Path(__file__).parents[2] / "docs" / "decisions"
PAGES = sorted(RECORDS.glob("[0-9]*.md"))
HEADER = re.compile(
    r"# (?P<number>[1-9]\d*)\. (?P<title>[^\n]+)\n\n"
    r"- Date: (?P<date>\d{4}-\d\d-\d\d)\n"
    r"- Status: (?P<status>accepted|superseded by \[\d+\]\((?P<successor>\d{4}-[\w-]+\.md)\))\n\n"
)


def header(text: str) -> re.Match[str]:
    found = HEADER.match(text)
    assert found, "begin with '# N. Title', '- Date: YYYY-MM-DD' and '- Status: accepted'"
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_record_has_number_date_and_status(page: Path) -> None:
    found = header(page.read_text(encoding="utf-8"))
    assert int(found["number"]) == int(page.name[:4])
    assert found["successor"] is None or (RECORDS / found["successor"]).exists()


def test_index_lists_every_record_in_order() -> None:
    expected = []
    for page in PAGES:
        found = header(page.read_text(encoding="utf-8"))
        link = f"[{found['number']}]({page.name})"
        expected.append(f"| {link} | {found['title']} | {found['date']} | {found['status']} |")
    index = (RECORDS / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[.*$", index, re.MULTILINE) == expected


@pytest.mark.parametrize(
    "text",
    [
        "# A title without a number\n\n- Date: 2026-11-21\n- Status: accepted\n\n",
        "# 1. A title\n\n**Decided.** No date.\n",
        "# 1. A title\n\n- Date: 21.11.2026\n- Status: accepted\n\n",
        "# 1. A title\n\n- Date: 2026-11-21\n- Status: superseded\n\n",
    ],
)
def test_incomplete_header_is_refused(text: str) -> None:
    with pytest.raises(AssertionError, match="begin with"):
        header(text)
