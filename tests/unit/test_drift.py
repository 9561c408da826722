"""The catalogue of drift is whole, and its page is in step."""

import subprocess
from itertools import chain

import pytest

from llmhost.checks.catalogue import entries
from llmhost.checks.corrections import correction
from tests.integration.drift.case import Drift
from tests.integration.drift.cases import CASES, PAGE, PLAIN, page
from tests.integration.drift.foreign import FOREIGN
from tests.integration.drift.test_drift import MUCH

# Checks of what each component has.
_OF_SEVERAL = {"system.no-unit-has-undeclared-overrides", "system.all-packages-are-fully-installed"}
ALL = tuple(chain(*CASES.values()))


def test_page_is_in_step_with_the_cases() -> None:
    assert PAGE.read_text() == page(), "run script/docs"


def test_every_case_is_another_one() -> None:
    assert len(ALL) >= 60
    assert len({case.id for case in ALL}) == len({case.by_hand for case in ALL}) == len(ALL)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.id)
def test_case_is_guarded_by_a_check_and_is_shell(case: Drift) -> None:
    assert case.guard in {entry.id for entry in entries()}
    subprocess.run(["sh", "-n"], input=case.by_hand, text=True, check=True)


def test_what_is_left_alone_is_shown_while_every_kind_of_thing_is_corrected() -> None:
    by_id = {case.id: case for case in PLAIN}
    components = {by_id[case].component for case in MUCH}
    assert components == {case.component for case in PLAIN}
    for foreign in FOREIGN:
        for command in (foreign.by_hand, foreign.look, foreign.undo):
            subprocess.run(["sh", "-n"], input=command, text=True, check=True)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.id)
def test_case_is_corrected_by_the_component_that_its_check_names(case: Drift) -> None:
    if case.guard in _OF_SEVERAL:
        return
    assert correction(case.guard).partition(": ")[0] == case.component
