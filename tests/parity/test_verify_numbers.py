"""What a report counts: features by cause, hours, scores, and which differences it keeps."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.clock import parse_time, to_micros
from lockstep.contract import Feature, FeatureContract, TrainingCut
from lockstep.errors import BadInput
from lockstep.online.epoch import Epochs
from lockstep.parity.cause import Cause
from lockstep.parity.compare import Difference
from lockstep.parity.facts import scores_of
from lockstep.parity.report import SCORE_BINS, FeatureRate, HourCompared, ScoreShift
from lockstep.parity.sample import ServedRow
from lockstep.parity.verify import SHOWN, feature_rates, hours_compared, shown

NOON = parse_time("2018-06-01T12:00:00Z")
CONTRACT = FeatureContract(
    project="test",
    feature_service="s",
    join_keys=(),
    request_inputs=(),
    features=(
        Feature(name="nb", view="spend", dtype="int64"),
        Feature(name="nb", view="risk", dtype="int64"),
        Feature(name="amount", view="payment", dtype="float64"),
    ),
    views=(),
    on_demand=(),
    cut=TrainingCut(tables=(), spine_hash="h", known_at=NOON),
)
NOBODY = Epochs(incarnation="i", views={})
ROW = ServedRow(
    request_id="r",
    row=0,
    request_us=to_micros(NOON),
    read_us=to_micros(NOON),
    inputs={},
    keys={},
    before=NOBODY,
    after=NOBODY,
    views={},
    vector=(),
    contract=CONTRACT.hash,
    model="m",
    score=0.5,
    flags=(),
    uniform=True,
    process="p",
    counter=1,
)


def row(counter: int, time: str = "2018-06-01T12:00:00Z") -> ServedRow:
    return replace(ROW, counter=counter, request_us=to_micros(parse_time(time)))


def differs(counter: int, cause: Cause, feature: str | None = "nb", **changes: Any) -> Difference:
    plain = Difference(f"p/{counter}", "training", "spend", feature, 1.0, 2.0, cause, "made up")
    return replace(plain, **changes)


def test_a_feature_counts_its_rows_once_for_each_cause() -> None:
    found = {
        "p/1": [differs(1, Cause.MISSING), differs(1, Cause.UNEXPLAINED, kind="consistency")],
        "p/2": [differs(2, Cause.MISSING), differs(2, Cause.MISSING, kind="consistency")],
        "p/3": [differs(3, Cause.EARLY, view="risk"), differs(3, Cause.CORRUPTION, None)],
    }
    assert feature_rates(CONTRACT, list(found), found) == (
        FeatureRate(name="nb", view="spend", compared=3, differing=2, causes={"missing": 2, "unexplained": 1}),
        FeatureRate(name="nb", view="risk", compared=3, differing=1, causes={"early": 1}),
        FeatureRate(name="amount", view="payment", compared=3, differing=0, causes={}),
    )


@pytest.mark.parametrize(
    ("differing", "causes", "mismatches"),
    [
        (0, {}, 0),
        (3, {"early": 2, "late": 1}, 0),
        (5, {"early": 3, "missing": 2}, 2),
        (3, {"corruption": 3, "unexplained": 2}, 3),
        (1, {"a cause of another release": 1}, 1),
    ],
)
def test_a_feature_is_a_mismatch_in_the_rows_that_no_cause_excuses(
    differing: int, causes: dict[str, int], mismatches: int
) -> None:
    rate = FeatureRate(name="nb", view="spend", compared=9, differing=differing, causes=causes)
    assert rate.mismatches == mismatches


def test_an_hour_counts_a_row_as_a_mismatch_as_excused_or_as_equal() -> None:
    rows = [
        row(4, "2018-06-01T13:00:00Z"),
        row(1, "2018-06-01T11:00:00Z"),
        row(2, "2018-06-01T11:59:59.999999Z"),
        row(3, "2018-06-01T11:30:00Z"),
    ]
    found = {
        "p/1": [differs(1, Cause.EARLY), differs(1, Cause.MISSING)],
        "p/2": [differs(2, Cause.LATE), differs(2, Cause.EARLY)],
        "p/3": [],
        "p/4": [],
    }
    assert hours_compared(rows, found) == (
        HourCompared(hour=parse_time("2018-06-01T11:00:00Z"), rows=3, mismatches=1, excused=1),
        HourCompared(hour=parse_time("2018-06-01T13:00:00Z"), rows=1, mismatches=0, excused=0),
    )


def test_a_score_that_moves_over_the_threshold_flips_the_decision() -> None:
    shift = ScoreShift.between([0.1, 0.5, 0.9, 1.0], [0.1, 0.25, 0.8, 1.0], threshold=0.5)
    assert shift is not None
    assert (shift.rows, shift.changed, shift.flipped) == (4, 2, 1)
    assert shift.mean_shift == pytest.approx(0.0875)
    assert shift.largest_shift == 0.25
    assert {n: rows for n, rows in enumerate(shift.served) if rows} == {2: 1, 10: 1, 18: 1, 19: 1}
    assert {n: rows for n, rows in enumerate(shift.expected) if rows} == {2: 1, 5: 1, 16: 1, 19: 1}


def test_a_score_that_is_rounded_otherwise_has_not_changed() -> None:
    shift = ScoreShift.between([0.1 + 0.2], [0.3], threshold=0.9)
    assert shift is not None
    assert (shift.changed, shift.flipped) == (0, 0)


def test_no_rows_have_no_score_shift() -> None:
    assert ScoreShift.between([], [], threshold=0.5) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1), st.randoms())
def test_the_numbers_of_a_score_shift_depend_on_no_order_of_the_rows(pairs: Any, shuffled: Any) -> None:
    before = ScoreShift.between(*zip(*pairs, strict=True), threshold=0.5)
    shuffled.shuffle(pairs)
    after = ScoreShift.between(*zip(*pairs, strict=True), threshold=0.5)
    assert before == after
    assert after is not None
    assert sum(after.served) == sum(after.expected) == len(pairs)
    assert len(after.served) == SCORE_BINS


def test_a_feature_that_differs_everywhere_does_not_crowd_out_one_that_differs_once() -> None:
    found = {f"p/{n}": [differs(n, Cause.MISSING)] for n in range(SHOWN + 50)}
    found["p/999"] = [differs(999, Cause.EARLY), differs(999, Cause.CORRUPTION, "amount")]
    kept = shown(found)
    assert len(kept) == SHOWN
    assert [(d.row, d.feature, d.cause) for d in kept[:3]] == [
        ("p/0", "nb", "missing"),
        ("p/999", "amount", "corruption"),
        ("p/1", "nb", "missing"),
    ]
    assert "early" not in {d.cause for d in kept}


def test_what_is_excused_is_kept_after_every_mismatch() -> None:
    kept = shown({"p/1": [differs(1, Cause.EARLY)], "p/2": [differs(2, Cause.MISSING), differs(2, Cause.MISSING)]})
    assert [d.cause for d in kept] == ["missing", "missing", "early"]


def test_scores_are_the_models_of_the_positive_class(monkeypatch) -> None:
    asked: list[np.ndarray] = []

    class Estimator:
        def predict_proba(self, matrix: np.ndarray) -> np.ndarray:
            asked.append(matrix)
            return np.array([[0.75, 0.25], [0.5, 0.5]])

    opened = {Path("model"): SimpleNamespace(estimator=Estimator(), fallback=None)}
    monkeypatch.setattr("lockstep.parity.facts.load_artifact", opened.__getitem__)
    vectors = np.array([[1.0, np.nan], [2.0, 3.0]])
    assert scores_of(Path("model"), vectors).tolist() == [0.25, 0.5]
    np.testing.assert_array_equal(asked, [vectors])
    with pytest.raises(BadInput, match="model has no fallback model"):
        scores_of(Path("model"), vectors, fallback=True)


def test_a_window_without_rows_opens_no_model() -> None:
    assert scores_of(Path("nowhere"), np.empty((0, 2))).tolist() == []
