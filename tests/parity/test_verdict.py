"""The numbers a verdict stands on, and what makes it a pass, a fail, or not enough evidence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from lockstep.parity.cause import Cause
from lockstep.parity.compare import Difference
from lockstep.parity.verdict import Judgement, Verdict, judge, required_rows, upper_bound


def difference(cause: Cause, kind: str = "training") -> Difference:
    return Difference("r/0", kind, "spend", "nb_1d", 1.0, 2.0, cause, "made up")


def rows(equal: int, *causes: Cause) -> dict[str, list[Difference]]:
    found: dict[str, list[Difference]] = {f"equal/{n}": [] for n in range(equal)}
    return found | {f"differs/{n}": [difference(cause)] for n, cause in enumerate(causes)}


def judged(uniform: dict[str, list[Difference]], **changes: object) -> Judgement:
    limits = {
        "limit": 0.01,
        "confidence": 0.95,
        "most_excused": 0.2,
        "lost": 0.0,
        "foreign": 0,
        "present": {"v": 999},
        "intervals": {"v": 2},
    } | changes
    return judge(uniform, limits.pop("strata", {}), **limits)


@pytest.mark.parametrize(
    ("wrong", "sampled", "bound"), [(0, 50, 0.0582), (0, 300, 0.00994), (1, 300, 0.0157), (0, 0, 1.0), (3, 2, 1.0)]
)
def test_the_bound_is_clopper_and_pearsons(wrong: int, sampled: int, bound: float) -> None:
    assert upper_bound(wrong, sampled, 0.95) == pytest.approx(bound, rel=2e-3)


@given(st.integers(0, 20), st.integers(21, 400))
def test_at_the_bound_so_few_mismatches_have_just_the_remaining_probability(wrong: int, sampled: int) -> None:
    assert binom.cdf(wrong, sampled, upper_bound(wrong, sampled, 0.95)) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(("limit", "needed"), [(0.01, 299), (0.05, 59), (0.001, 2995)])
def test_the_rows_a_limit_needs_are_just_enough(limit: float, needed: int) -> None:
    assert required_rows(limit, 0.95) == needed
    assert upper_bound(0, needed, 0.95) < limit <= upper_bound(0, needed - 1, 0.95)


def test_enough_equal_rows_pass() -> None:
    passed = judged(rows(320))
    assert (passed.verdict, passed.reasons, passed.mismatches) == (Verdict.PASS, (), 0)


def test_too_few_equal_rows_are_not_enough_evidence() -> None:
    lacking = judged(rows(298))
    assert lacking.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert lacking.reasons == ("298 sampled rows, 299 needed to exclude 1.00%",)


def test_no_rows_at_all_never_pass() -> None:
    assert judged({}).verdict is Verdict.NOT_ENOUGH_EVIDENCE


@pytest.mark.parametrize("cause", [cause for cause in Cause if not cause.excused])
def test_one_mismatch_in_320_rows_fails_whatever_its_cause(cause: Cause) -> None:
    failed = judged(rows(319, cause))
    assert failed.verdict is Verdict.FAIL
    assert failed.reasons == ("1 of 320 sampled rows are mismatches",)


def test_excused_rows_are_counted_and_too_many_say_too_little() -> None:
    some = judged(rows(320, Cause.EARLY, Cause.LATE))
    assert (some.verdict, some.mismatches, some.excused) == (Verdict.PASS, 0, 2)
    many = judged(rows(320, *[Cause.EARLY] * 100))
    assert many.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert "excused" in many.reasons[0]


def test_rows_that_hold_nothing_are_no_evidence() -> None:
    empty = judged(rows(320), present={"spend": 298})
    assert (empty.verdict, empty.reasons) == (
        Verdict.NOT_ENOUGH_EVIDENCE,
        ("spend: 298 sampled rows hold a value, 299 needed",),
    )


def test_a_sample_of_one_interval_is_not_enough() -> None:
    assert judged(rows(320), intervals={"spend": 1}).verdict is Verdict.NOT_ENOUGH_EVIDENCE


def test_excused_rows_do_not_count_towards_the_rows_needed() -> None:
    assert judged(rows(298, Cause.EARLY, Cause.EARLY)).verdict is Verdict.NOT_ENOUGH_EVIDENCE


def test_rejected_rows_do_not_count_towards_the_rows_needed_and_most_may_not_be() -> None:
    some = judged(rows(320), rejected=22)
    assert (some.verdict, some.reasons) == (
        Verdict.NOT_ENOUGH_EVIDENCE,
        ("298 sampled rows, 299 needed to exclude 1.00%",),
    )
    most = judged(rows(1000), rejected=501)
    assert (most.verdict, most.reasons) == (
        Verdict.NOT_ENOUGH_EVIDENCE,
        ("501 of 1000 sampled rows are rejected, at most 50% may be",),
    )
    assert judged(rows(1000), rejected=500).verdict is Verdict.PASS


def test_the_bound_is_that_of_the_rows_that_are_evidence() -> None:
    wrong = judged(rows(756, *[Cause.CORRUPTION] * 4, *[Cause.LATE] * 140), most_excused=0.25, rejected=100)
    assert wrong.upper_bound == pytest.approx(upper_bound(4, 660, 0.95))
    assert wrong.verdict is Verdict.FAIL


def test_no_write_time_however_long_excuses_more_than_a_quarter() -> None:
    slow = judged(rows(1000, *[Cause.LATE] * 400), most_excused=4.17)
    assert slow.verdict is Verdict.NOT_ENOUGH_EVIDENCE


def test_any_mismatch_in_a_stratum_fails() -> None:
    failed = judged(rows(5000), strata=rows(3, Cause.MISSING))
    assert (failed.verdict, failed.stratum_mismatches) == (Verdict.FAIL, 1)


def test_rows_that_name_a_foreign_contract_fail_however_many_others_are_equal() -> None:
    failed = judged(rows(5000), foreign=1)
    assert (failed.verdict, failed.mismatches) == (Verdict.FAIL, 0)
    assert failed.reasons == ("1 log rows of this model name a contract that is not its own",)


def test_a_row_with_an_excused_difference_and_another_one_is_a_mismatch() -> None:
    both = {"r/0": [difference(Cause.EARLY), difference(Cause.ERASED, "consistency"), difference(Cause.TYPE)]}
    counted = judged(rows(319) | both)
    assert (counted.mismatches, counted.excused) == (1, 0)


def test_a_log_that_lost_rows_is_not_enough_evidence() -> None:
    assert judged(rows(320), lost=0.02).reasons == ("2.00% of the served log is lost, at most 1% may be",)
