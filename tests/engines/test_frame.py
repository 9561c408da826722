"""What the frame of the contracts reports."""

from tests.engines.contract import Outcome, summary, unproven

REAL, DOUBLE = ("vLLM", "0.32", "real"), ("vLLM", "0.32", "double")
HERE = "tests/engines/test_vllm.py::"


def test_results_are_counted_by_engine_and_side() -> None:
    outcomes = [
        Outcome(f"{HERE}test_a[double]", "passed", DOUBLE),
        Outcome(f"{HERE}test_a[real]", "passed", REAL),
        Outcome(f"{HERE}test_b[real]", "failed", REAL),
        Outcome(f"{HERE}test_d[real]", "passed", REAL, cases=81),
        Outcome(f"{HERE}test_c", "skipped"),
    ]
    assert [*summary(outcomes)] == [
        "engine  version  side    cases  passed",
        "vLLM    0.32     double  1      1",
        "vLLM    0.32     real    83     82",
    ]
    assert [*summary(outcomes[4:])] == []


def test_case_that_no_side_has_run_is_named() -> None:
    outcomes = [
        Outcome(f"{HERE}test_a[double-x]", "passed", DOUBLE),
        Outcome(f"{HERE}test_a[real-x]", "skipped"),
        Outcome(f"{HERE}test_a[double-y]", "skipped"),
        Outcome(f"{HERE}test_a[real-y]", "skipped"),
        Outcome(f"{HERE}test_b", "skipped"),
    ]
    assert unproven(outcomes) == [f"{HERE}test_a[y]", f"{HERE}test_b"]
