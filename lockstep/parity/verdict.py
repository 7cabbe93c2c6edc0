"""Judge what was compared: an exact binomial bound on the uniform sample, and no mismatch at all in the strata."""

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from lockstep.parity.compare import Difference, is_mismatch
from lockstep.serving.shadow import MOST_REJECTED

MOST_LOST = 0.01
MOST_EXCUSED = 0.25
"""Whatever the lags and write times say: where a quarter of the rows differ, excused or not, nothing is proven."""

LEAST_INTERVALS = 2
"""The sample must span a materialization: rows read before it and after it."""


class Verdict(enum.StrEnum):
    """What the evidence says."""

    PASS = "pass"  # noqa: S105 - the linter takes it for a password
    FAIL = "fail"
    NOT_ENOUGH_EVIDENCE = "not_enough_evidence"


@dataclass(frozen=True)
class Judgement:
    """A verdict with its numbers.

    Attributes:
        verdict: pass, fail, or not enough evidence.
        reasons: why it is not a pass.
        mismatches: rows of the uniform sample that are mismatches.
        excused: rows of the uniform sample that differ for excused causes only.
        stratum_mismatches: rows of the strata that are mismatches.
        upper_bound: of the mismatch rate, one-sided, at the stated confidence.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    mismatches: int
    excused: int
    stratum_mismatches: int
    upper_bound: float


def upper_bound(mismatches: int, rows: int, confidence: float) -> float:
    """Return the one-sided Clopper-Pearson upper bound of a rate; 1.0 where no row is none.

    Source: Clopper & Pearson (1934), *The use of confidence or fiducial limits*, Biometrika 26: 404-413.
    """
    if rows <= mismatches:
        return 1.0
    exact = binomtest(mismatches, rows, alternative="less").proportion_ci(confidence_level=confidence, method="exact")
    return float(exact.high)


def evidence(rows: int, excused: int, rejected: int) -> int:
    """Return how many rows at least speak for parity: an excused one was not equal, a rejected one has no score to compare."""
    return max(0, rows - excused - rejected)


def required_rows(limit: float, confidence: float) -> int:
    """Return the least number of rows that can bound the rate below `limit`: all of them equal."""
    rows = math.ceil(math.log1p(-confidence) / math.log1p(-limit))
    return rows if upper_bound(0, rows, confidence) < limit else rows + 1


def judge(
    uniform: Mapping[str, Sequence[Difference]],
    strata: Mapping[str, Sequence[Difference]],
    *,
    limit: float,
    confidence: float,
    most_excused: float,
    lost: float,
    foreign: int,
    present: Mapping[str, int],
    intervals: Mapping[str, int],
    rejected: int = 0,
    ahead: int = 0,
    twice: int = 0,
) -> Judgement:
    """Judge the differences per row of both samples.

    Args:
        uniform: the differences of each row of the uniform sample, empty for equal rows.
        strata: the same of the stratified sample.
        limit: the mismatch rate that must be excluded.
        confidence: how surely.
        most_excused: the share of excused rows above which the sample says too little.
        lost: the share of log rows that never arrived.
        foreign: log rows of the model that name a contract which is not the model's.
        present: per stored view, rows of the uniform sample that were read and used.
        intervals: per stored view, how many committed intervals they were read from.
        rejected: rows of the uniform sample that the policy rejects.
        ahead: sampled rows that were read at a time which is yet to come, by our clock.
        twice: log rows that have a name which another one has.
    """
    wrong, excused, bad_strata = _mismatches(uniform), _excused(uniform), _mismatches(strata)
    bound = upper_bound(wrong, evidence(len(uniform), excused, rejected), confidence)
    failing = [f"{bad_strata} rows of the stratified sample are mismatches"] * bool(bad_strata)
    failing += [f"{foreign} log rows of this model name a contract that is not its own"] * bool(foreign)
    failing += [f"{ahead} sampled rows were read at a time that is yet to come: the clock of the log is ahead"] * bool(
        ahead
    )
    failing += [twice_named(twice)] * bool(twice)
    failing += [f"{wrong} of {len(uniform)} sampled rows are mismatches"] * bool(wrong and bound >= limit)
    lacking = lacks(len(uniform), excused, rejected, present, intervals, limit=limit, confidence=confidence)
    share = excused / len(uniform) if uniform else 0.0
    most_excused = min(most_excused, MOST_EXCUSED)
    lacking += [f"{share:.2%} of the rows are excused, at most {most_excused:.2%} may be"] * (share > most_excused)
    lacking += [f"{lost:.2%} of the served log is lost, at most {MOST_LOST:.0%} may be"] * (lost > MOST_LOST)
    verdict = Verdict.FAIL if failing else Verdict.NOT_ENOUGH_EVIDENCE if lacking else Verdict.PASS
    return Judgement(verdict, (*failing, *lacking), wrong, excused, bad_strata, bound)


def twice_named(rows: int) -> str:
    """Tell that rows of the log cannot be told from others."""
    return f"{rows} rows of the log have a name that another one has"


def lacks(
    rows: int,
    excused: int,
    rejected: int,
    present: Mapping[str, int],
    intervals: Mapping[str, int],
    *,
    limit: float,
    confidence: float,
) -> list[str]:
    """Return what a sample lacks as evidence: rows not excused, rejected or empty, on both sides of a materialization."""
    required, enough = required_rows(limit, confidence), evidence(rows, excused, rejected)
    lacking = [f"{enough} sampled rows, {required} needed to exclude {limit:.2%}"] * (enough < required)
    lacking += [f"{rejected} of {rows} sampled rows are rejected, at most {MOST_REJECTED:.0%} may be"] * (
        rejected > MOST_REJECTED * rows
    )
    lacking += [
        f"{view}: {n} sampled rows hold a value, {required} needed" for view, n in present.items() if n < required
    ]
    lacking += [
        f"{view}: rows of {n} committed interval(s) were sampled, {LEAST_INTERVALS} needed"
        for view, n in intervals.items()
        if n < LEAST_INTERVALS
    ]
    return lacking


def _mismatches(rows: Mapping[str, Sequence[Difference]]) -> int:
    return sum(map(is_mismatch, rows.values()))


def _excused(rows: Mapping[str, Sequence[Difference]]) -> int:
    return sum(bool(differences) and not is_mismatch(differences) for differences in rows.values())
