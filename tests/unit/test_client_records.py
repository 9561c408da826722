"""Inventories are edited without touching what people wrote around a record."""

import pytest

from llmhost.gateway.client_records import added, changed, field
from llmhost.gateway.python_source import EditError

ONE_LINE = """\
# The site of Zürich.
servers = (
    [("llm", {})],
    {
        "api_clients": [
            # The main application; ask Ann before changing it.
            {"name": "app", "sha256": "11"},  # <- Grüße
        ],
    },
)
"""

MANY_LINES = """\
api_clients = [
    dict(
        name="app",
        sha256="11",  # rotated in May
    ),
    dict(name="other", sha256="22", scope="admin"),
]
"""

EMPTY = 'site = dict(api_clients=[], other=1)  # "api_clients": nothing yet\n'


def test_client_is_added_on_a_line_of_its_own() -> None:
    assert added(ONE_LINE, [{"name": "bot", "sha256": "33"}]) == ONE_LINE.replace(
        "# <- Grüße\n", '# <- Grüße\n            {"name": "bot", "sha256": "33"},\n'
    )


def test_comma_that_is_missing_is_put_before_the_comment() -> None:
    bare = ONE_LINE.replace('"11"},', '"11"}')
    assert added(bare, [{"name": "bot", "sha256": "33"}]) == added(
        ONE_LINE, [{"name": "bot", "sha256": "33"}]
    )


def test_client_is_added_to_an_empty_list() -> None:
    assert added(EMPTY, [{"name": "bot", "sha256": "33"}]).startswith(
        'site = dict(api_clients=[{"name": "bot", "sha256": "33"}], other=1)  #'
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = '\f'\napi_clients = [\n    {'name': 'a'}\n]\n", "    {'name': 'a'},\n    NEW,\n]\n"),
        ("api_clients = [\r\n\t{'name': 'a'},\r\n]\r\n", "{'name': 'a'},\r\n\tNEW,\r\n]\r\n"),
        ("api_clients: list = [{'name': 'a'}]  # all\n", "[{'name': 'a'}, NEW]  # all\n"),
        ("api_clients = (\n  {'name': 'a'},\n  # more\n)\n", "},\n  # more\n  NEW,\n)\n"),
        ("x = {'api_clients': [dict(name='a')]}\n", "[dict(name='a'), NEW]}\n"),
    ],
)
def test_client_is_added_as_the_others_are_written(before: str, after: str) -> None:
    new = '{"name": "bot", "sha256": "33"}'
    edited = added(before, [{"name": "bot", "sha256": "33"}])
    assert edited.endswith(after.replace("NEW", new))
    assert field(edited, "bot", "sha256") == "33"


@pytest.mark.parametrize(
    ("record", "edited"),
    [
        ("dict(name='app')", "dict(name='app', revoked=True)"),
        (
            "dict(\n    name='app', sha256='11'  # one\n)",
            "dict(\n    name='app', sha256='11',  # one\n    revoked=True,\n)",
        ),
        ("{\n    'name': 'app',\n}", "{\n    'name': 'app',\n    \"revoked\": True,\n}"),
        ("{'name': 'a' 'pp', **more}", "{'name': 'a' 'pp', **more, \"revoked\": True}"),
    ],
)
def test_field_is_added_to_every_form_of_a_record(record: str, edited: str) -> None:
    clients = "api_clients = [{}]\n"
    assert changed(clients.format(record), "app", {"revoked": True}) == clients.format(edited)


def test_client_is_not_added_twice() -> None:
    with pytest.raises(EditError, match="to replace a key"):
        added(MANY_LINES, [{"name": "other", "sha256": "33"}])


@pytest.mark.parametrize("source", ["x = 1\n", EMPTY + EMPTY])
def test_client_is_not_added_where_its_list_is_unclear(source: str) -> None:
    with pytest.raises(EditError, match=r"no list api_clients|2 lists of api_clients"):
        added(source, [{"name": "bot", "sha256": "33"}])


def test_fields_are_replaced_and_added() -> None:
    edited = changed(MANY_LINES, "app", {"sha256": "44", "revoked": True})
    assert edited == MANY_LINES.replace(
        'sha256="11",  # rotated in May', 'sha256="44",  # rotated in May\n        revoked=True,'
    )
    edited = changed(ONE_LINE, "app", {"sha256": "44", "previous_sha256": "11"})
    assert edited == ONE_LINE.replace('"11"}', '"44", "previous_sha256": "11"}')


def test_field_is_read() -> None:
    assert field(MANY_LINES, "other", "scope") == "admin"
    assert field(MANY_LINES, "app", "scope") is None


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ('api_clients = [{"name": "app", "sha256": digest}]', "is computed"),
        ("api_clients = [app]", "no record of 'app'"),
        ("api_clients = [", "line 1 is not Python"),
        (MANY_LINES.replace("other", "app"), "2 records of 'app'"),
    ],
)
def test_what_a_program_can_not_edit_is_left_to_people(source: str, sentence: str) -> None:
    with pytest.raises(EditError, match=sentence):
        field(source, "app", "sha256")
