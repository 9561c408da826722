"""What a host remembers of its deploys."""

from dataclasses import replace

from llmhost.history.run_record import Run, history, parse, table_row, taken

RUN = Run("1f", "ann@desk", "2026-01-02T03:04:05Z", "0.1", "0123456789abcdef", False, 4711)


def test_a_run_survives_its_line() -> None:
    run = RUN.with_change("Docker | Install").ended("failed", "Stack | Bake")
    assert parse(run.line) == run
    assert "\n" not in replace(run, by="two\nlines").line


def test_a_run_that_says_nothing_more_was_cut_off() -> None:
    assert RUN.with_change("Docker | Install").result == "cut off"


def test_history_tells_the_last_word_of_each_run_in_the_order_of_their_ends() -> None:
    other = replace(RUN, run="2e", by="bob@desk")
    lines = [RUN.line, other.ended("done").line, RUN.with_change("a").ended("done").line]
    assert history(lines) == [other.ended("done"), RUN.with_change("a").ended("done")]


def test_damaged_lines_are_passed_over() -> None:
    assert history(["", "{", "[]", '{"run": "1"}', RUN.line]) == [RUN]


def test_who_comes_second_is_told_who_was_first_and_how_to_free_the_host() -> None:
    sentence = taken(RUN.line, "llm")
    assert sentence.startswith(
        "ann@desk (process 4711) has been deploying to this host since 2026-01-02"
    )
    assert "llmhost unlock INVENTORY llm" in sentence


def test_owner_that_can_not_be_read_is_told_as_somebody() -> None:
    assert taken("", "llm").startswith("someone has been deploying to this host;")


def test_row_shows_a_modified_revision_and_what_failed() -> None:
    run = replace(RUN, modified=True).with_change("a").with_change("b").ended("failed", "c")
    assert table_row(run)[2:] == ("01234567+", "failed: c", "a\nb")
