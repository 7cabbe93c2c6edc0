"""The metrics of held-out rows, against scikit-learn and against plain lines that do the same slowly."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from held_out import a_week, scored_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from lockstep.errors import BadInput
from lockstep.threads import one_thread
from lockstep.training.evaluation.calibration import EDGES, calibration
from lockstep.training.evaluation.curves import POINTS, precision_recall, roc, thin
from lockstep.training.evaluation.entities import entity_precision, rank_days, rows_found
from lockstep.training.evaluation.importance import importance
from lockstep.training.evaluation.ranking import RowRanking, auc, average_precision
from lockstep.training.evaluation.recall import decision, recall_by_group
from lockstep.training.evaluation.scored import DAY_US, Scored


@st.composite
def weeks(draw: st.DrawFn) -> Scored:
    """Few days, entities and distinct scores, so that ties and days without positives are common."""
    row = st.tuples(
        st.integers(0, 3), st.integers(0, 6), st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.4, 0.5, 1.0])
    )
    rows = draw(
        st.lists(row, min_size=2, max_size=40).filter(lambda rows: len({label for _, _, label, _ in rows}) == 2)
    )
    return scored_rows(rows, [(1 + n % 2) * label for n, (_, _, label, _) in enumerate(rows)])


def handbook_precision(scored: Scored, top: int) -> tuple[list[int], list[float], float]:
    """Card precision as the Fraud Detection Handbook describes it, equal scores by the smaller key: the oracle."""
    rows = pd.DataFrame(
        {"day": scored.times_us // DAY_US, "entity": scored.entity, "label": scored.labels, "score": scored.scores}
    )
    detected: list[Any] = []
    positives, precisions = [], []
    for _, day in rows.groupby("day"):
        left = day[~day["entity"].isin(detected)]
        positives.append(left[left["label"] == 1]["entity"].nunique())
        by_entity = (
            left.groupby("entity").max().reset_index().sort_values(["score", "entity"], ascending=[False, True])
        )
        found = by_entity.head(top).query("label == 1")["entity"]
        precisions.append(len(found) / top)
        detected += list(found)
    return positives, precisions, float(np.mean(precisions))


@given(weeks(), st.integers(1, 8))
@settings(max_examples=60)
def test_entity_precision_is_the_handbooks_card_precision(scored: Scored, top: int) -> None:
    ours = entity_precision(scored, top)
    positives, precisions, mean = handbook_precision(scored, top)
    assert [day.positives for day in ours.days] == positives
    assert [day.precision for day in ours.days] == precisions
    assert ours.precision == pytest.approx(mean, abs=1e-12)
    assert ours.ceiling == pytest.approx(
        handbook_precision(scored.with_scores(scored.labels.astype(float)), top)[2], abs=1e-12
    )


def test_a_detected_entity_does_not_come_back_and_one_that_was_missed_does() -> None:
    scored = scored_rows(
        [
            (0, "a", 1, 0.9),
            (0, "a", 0, 0.2),
            (0, "b", 1, 0.1),
            (0, "c", 0, 0.8),
            (1, "a", 1, 0.9),
            (1, "b", 1, 0.7),
            (1, "c", 0, 0.6),
        ]
    )
    found = entity_precision(scored, 1)
    assert [(day.day.isoformat(), day.entities, day.positives, day.found) for day in found.days] == [
        ("2018-06-18", 3, 2, 1),
        ("2018-06-19", 2, 1, 1),
    ]
    assert found.precision == 1.0


def test_a_day_with_fewer_entities_than_can_be_looked_at_is_divided_by_all_the_same() -> None:
    found = entity_precision(scored_rows([(0, 1, 1, 0.9), (0, 2, 0, 0.1), (1, 3, 0, 0.5)]), 4)
    assert [day.precision for day in found.days] == [0.25, 0.0]
    assert (found.precision, found.ceiling) == (0.125, 0.125)


def test_of_equal_scores_the_smaller_key_is_looked_at_whatever_the_order_of_rows() -> None:
    rows = [(0, "b", 1, 0.5), (0, "a", 0, 0.5), (0, "c", 1, 0.5)]
    for order in (rows, rows[::-1]):
        (day,) = rank_days(scored_rows(order))
        assert list(day.codes) == [0, 1, 2]
        assert entity_precision(scored_rows(order), 2).precision == 0.5


def test_a_guess_finds_what_looking_at_random_finds_on_average() -> None:
    week, chance = a_week(), np.random.default_rng(1)
    day = week.days - week.days.min()
    guesses = [
        entity_precision(week.with_scores(chance.random((7, week.entities))[day, week.codes]), 40).precision
        for _ in range(60)
    ]
    assert entity_precision(week, 40).no_skill == pytest.approx(np.mean(guesses), rel=0.03)


@given(weeks(), st.data())
def test_weighted_ranking_is_scikit_learns_with_sample_weights(scored: Scored, data: st.DataObject) -> None:
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=scored.entities, max_size=scored.entities)))
    rows = weights[scored.codes]
    precision, area, share = RowRanking(scored).measure(weights)
    if set(scored.labels[rows > 0]) == {0, 1}:
        expected = average_precision_score(scored.labels, scored.scores, sample_weight=rows)
        assert precision == pytest.approx(expected, abs=1e-12)
        assert area == pytest.approx(roc_auc_score(scored.labels, scored.scores, sample_weight=rows), abs=1e-12)
        assert share == pytest.approx(np.average(scored.labels, weights=rows))
    else:
        assert np.isnan(area)
        assert precision == 1.0 if 1 in scored.labels[rows > 0] else np.isnan(precision)


def test_every_row_once_is_the_ranking_of_the_rows() -> None:
    week = a_week()
    precision, area, share = RowRanking(week).measure(np.ones(week.entities, np.int64))
    assert precision == pytest.approx(average_precision(week), abs=1e-12)
    assert area == pytest.approx(auc(week), abs=1e-12)
    assert share == week.share


def test_scores_that_are_probabilities_are_calibrated_and_doubled_ones_are_not() -> None:
    chance = np.random.default_rng(0)
    scores = chance.beta(0.3, 12, 50_000)
    labels = (chance.random(50_000) < scores).astype(np.int64)
    honest = Scored(np.arange(50_000) * 1_000_000, labels, scores, np.arange(50_000))
    good, boasting = calibration(honest), calibration(honest.with_scores(np.minimum(2 * scores, 1.0)))
    assert good.brier == pytest.approx(brier_score_loss(labels, scores))
    assert good.brier < good.brier_no_skill == pytest.approx(np.var(labels))
    assert good.expected_error < 0.002
    assert boasting.expected_error == pytest.approx(good.mean_score, rel=0.1)
    assert boasting.mean_score == pytest.approx(2 * good.share, rel=0.1)


def test_the_bins_are_those_of_scikit_learns_curve_in_log_odds_and_hold_every_row_once() -> None:
    week = a_week()
    found = calibration(week)
    inside = np.histogram(week.scores, [0, *EDGES, 1])[0]
    assert [one.rows for one in found.bins] == [count for count in inside if count]
    # Its bins are of equal width: of the places of the scores among our edges they are ours.
    place = (np.searchsorted(EDGES, week.scores, side="right") + 0.5) / (len(EDGES) + 1)
    shares, _ = calibration_curve(week.labels, place, n_bins=len(EDGES) + 1)
    assert [one.share for one in found.bins] == pytest.approx(list(shares))
    assert EDGES[7:11] == pytest.approx((0.25, 0.5, 0.75, 0.9))
    assert sum(one.positives for one in found.bins) == week.positives


def test_a_score_on_an_edge_belongs_to_the_bin_above_it() -> None:
    found = calibration(scored_rows([(0, 1, 0, 0.4999), (0, 2, 1, 0.5)]))
    assert [(one.low, one.high) for one in found.bins] == [(0.25, 0.5), (0.5, 0.75)]


def test_scores_of_0_and_1_have_bins() -> None:
    found = calibration(scored_rows([(0, 1, 0, 0.0), (0, 2, 1, 1.0)]))
    assert [(one.low, one.high, one.rows, one.share) for one in found.bins] == [
        (0.0, EDGES[0], 1, 0.0),
        (EDGES[-1], 1.0, 1, 1.0),
    ]
    assert found.brier == found.expected_error == 0.0


def test_a_score_at_the_threshold_counts_as_positive() -> None:
    week = a_week()
    at = float(np.sort(week.scores)[-50])
    found = decision(week, at)
    assert found.flagged == 50
    assert found.precision == precision_score(week.labels, week.scores >= at)
    assert found.recall == recall_score(week.labels, week.scores >= at)
    assert decision(week, 1.1).precision is None


@given(weeks(), st.integers(1, 4), st.sampled_from([0.1, 0.3, 0.5]))
@settings(max_examples=60)
def test_recall_by_group_is_that_of_going_through_the_days_one_by_one(scored: Scored, top: int, at: float) -> None:
    assert scored.group is not None
    detected: set[Any] = set()
    seen = np.zeros(scored.rows, bool)
    for day in np.unique(scored.days):
        here = scored.days == day
        seen |= here & np.isin(scored.entity, list(detected))
        best = {key: max(scored.scores[here & (scored.entity == key)]) for key in set(scored.entity[here]) - detected}
        looked_at = sorted(best, key=lambda key: (-best[key], key))[:top]
        seen |= here & np.isin(scored.entity, looked_at)
        detected |= set(looked_at) & set(scored.entity[here & (scored.labels == 1)])
    assert list(rows_found(scored, top)) == list(seen)
    positive = scored.labels == 1
    assert [
        (g.group, g.positives, g.above_threshold, g.in_top) for g in recall_by_group(scored, threshold=at, top=top)
    ] == [
        (kind, sum(of := positive & (scored.group == kind)), sum(of & (scored.scores >= at)), sum(of & seen))
        for kind in sorted(set(scored.group[positive]))
    ]


def test_positives_of_one_kind_have_no_groups() -> None:
    assert recall_by_group(scored_rows([(0, 1, 1, 0.9), (0, 2, 0, 0.1)]), threshold=0.5, top=1) == ()


def distance(points: Any, line: Any) -> float:
    """How far the farthest point is from the line: the distance to the nearest of a thousand places on each piece of it."""
    begins, ends = np.array(line[:-1]), np.array(line[1:])
    along = ends - begins
    length = np.maximum((along**2).sum(1), 1e-300)
    share = np.clip(((points[:, None] - begins) * along).sum(2) / length, 0, 1)
    return float(np.sqrt(((points[:, None] - begins - share[..., None] * along) ** 2).sum(2)).min(1).max())


def test_the_curves_are_scikit_learns_with_few_points_and_the_same_shape() -> None:
    week = a_week(rows=20_000)
    precision, recall, _ = precision_recall_curve(week.labels, week.scores)
    for drawn, exact in (
        (roc(week), np.column_stack(roc_curve(week.labels, week.scores)[:2])),
        (precision_recall(week), np.column_stack([recall, precision])[::-1]),
    ):
        assert len(exact) > 500
        assert len(drawn) == POINTS
        assert distance(exact[::5], drawn) < 0.003
        assert (drawn[0], drawn[-1]) == (
            tuple(exact[0]),
            pytest.approx(tuple(exact[-1]), abs=1e-5),
        )
        assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)


def test_a_straight_line_keeps_its_ends_only() -> None:
    assert thin(np.linspace(0, 1, 50), np.linspace(0, 1, 50), 20).shape[0] <= 3
    assert thin(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.9, 1.0]), 2).tolist() == [[0, 0], [1, 1]]
    assert thin(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.9, 1.0]), 3).tolist() == [[0, 0], [0.5, 0.9], [1, 1]]


def test_the_feature_that_tells_is_the_important_one_and_the_kept_negatives_stand_for_all() -> None:
    chance = np.random.default_rng(0)
    labels = (chance.random(6_000) < 0.05).astype(np.int64)
    matrix = np.column_stack([chance.random(6_000), labels + 0.1 * chance.random(6_000), chance.random(6_000)])
    matrix[::7, 0] = np.nan
    with one_thread():
        model = HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(matrix[3_000:], labels[3_000:])
        matrix, labels = matrix[:3_000], labels[:3_000]
        names = [("spend", "nb"), ("risk", "risk_7d"), ("spend", "sum")]
        every = importance(model, matrix, labels, names, repeats=2)
        some = importance(model, matrix, labels, names, repeats=2, rows=1_000)
        assert importance(model, matrix, labels, names, repeats=2, rows=1_000) == some
    assert (every.rows, some.rows) == (3_000, 1_000)
    for found in (every, some):
        assert (found.features[0].view, found.features[0].feature) == ("risk", "risk_7d")
        assert abs(found.features[1].loss) < 0.05
    assert every.features[0].loss == pytest.approx(
        average_precision_score(labels, model.predict_proba(matrix)[:, 1]) - labels.mean(), abs=0.1
    )
    # Without their weights, three times fewer negatives would triple what a shuffled column leaves: 0.15 and not 0.05.
    assert some.features[0].loss == pytest.approx(every.features[0].loss, abs=0.03)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: scored_rows([(0, 1, 0, 0.5), (0, 2, 0, 0.5)]), "the 2 held-out rows have no positive label"),
        (lambda: scored_rows([(0, 1, 1, 0.5), (0, 2, 1, 0.5)]), "the 2 held-out rows have no negative label"),
        (
            lambda: scored_rows([(0, 1, 1, float("nan")), (0, 2, 0, 0.5)]),
            "1 of 2 held-out scores are no probabilities",
        ),
        (lambda: scored_rows([(0, 1, 1, 1.5), (0, 2, 0, -0.5)]), "2 of 2 held-out scores are no probabilities"),
        (lambda: scored_rows([(0, 1, 2, 0.5), (0, 2, 0, 0.5)]), "a held-out label is neither 0 nor 1"),
        (lambda: scored_rows([(0, None, 1, 0.5), (0, "b", 0, 0.5)]), "its key is null"),
        (lambda: scored_rows([(0, 1, 1, 0.5), (0, 2, 0, 0.5)], [1]), r"differ in length: times \(2,\).*groups \(1,\)"),
        (lambda: a_week().with_scores(np.zeros(3)), "differ in length"),
        (lambda: importance(None, np.zeros((2, 1)), np.array([0, 1]), [("v", "a"), ("v", "b")]), "no 2 features"),
        (lambda: importance(None, np.zeros((2, 1)), np.array([1, 1]), [("v", "a")]), "every label is 1"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(make: Callable[[], object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        make()
