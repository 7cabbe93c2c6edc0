"""How sure the metrics are, what a comparison says, and the document that holds them."""

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from held_out import CHAMPION, JUDGING, MONDAY, a_week, an_evaluation, champion_of, scored_rows
from pydantic import ValidationError

from lockstep.errors import BadInput
from lockstep.training.evaluation.document import (
    Alarm,
    Clocks,
    Evaluation,
    Fallback,
    Metrics,
    ViewPrice,
)
from lockstep.training.evaluation.evaluate import Champion, Judging, compare, measure, metrics
from lockstep.training.evaluation.resample import draw, interval, resample
from lockstep.training.evaluation.scored import DAY_US, Scored


def rows_of(scored: Scored, rows: Any) -> Scored:
    """The chosen rows, in the order chosen, some of them perhaps twice."""
    return Scored(scored.times_us[rows], scored.labels[rows], scored.scores[rows], scored.entity[rows])


def test_entities_that_are_all_alike_leave_no_doubt() -> None:
    rows = [
        (0, entity, label, score) for entity in range(9) for label, score in ((1, 0.6), (0, 0.7), (0, 0.2), (1, 0.2))
    ]
    found = measure(scored_rows(rows), Judging(top=3, threshold=0.5, replicates=30))
    for estimate in (found.average_precision, found.auc, found.entity_precision):
        assert estimate.interval is not None
        assert estimate.interval.low == estimate.interval.high == pytest.approx(estimate.value, abs=1e-12)
        assert estimate.interval.replicates == 30


def test_rows_twice_are_not_more_evidence() -> None:
    once, doubled = (measure(week, JUDGING) for week in (a_week(), rows_of(a_week(), np.repeat(np.arange(4_000), 2))))
    for name in ("average_precision", "auc", "entity_precision"):
        assert getattr(doubled, name).interval.low == pytest.approx(getattr(once, name).interval.low, abs=1e-12)
        assert getattr(doubled, name).interval.high == pytest.approx(getattr(once, name).interval.high, abs=1e-12)


def test_rows_in_another_order_are_the_same_evidence() -> None:
    week = a_week()
    shuffled = rows_of(week, np.random.default_rng(0).permutation(week.rows))
    one, other = (resample({"model": s}, top=20, replicates=10, seed=5)["model"] for s in (week, shuffled))
    assert one.average_precision == pytest.approx(other.average_precision, abs=1e-12)
    assert one.auc == pytest.approx(other.auc, abs=1e-12)
    assert list(one.entity_precision) == list(other.entity_precision)


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """The AUC of normal scores one deviation apart is known: 0.7602 (Phi(1 / sqrt 2))."""
    chance = np.random.default_rng(11)
    held = 0
    for trial in range(60):
        labels = np.repeat([1, 0, 0, 0], 40)
        logits = chance.normal(labels.astype(float), 1.0)
        scored = Scored(np.full(160, MONDAY * DAY_US), labels, 1 / (1 + np.exp(-logits)), np.arange(160))
        found = interval(resample({"m": scored}, top=5, replicates=100, seed=trial)["m"].auc, 160)
        assert found is not None
        held += found.low <= 0.7602 <= found.high
    assert 51 <= held <= 60


def test_clusters_make_intervals_wider_than_rows_alone_would() -> None:
    chance = np.random.default_rng(2)
    entity = np.repeat(np.arange(60), 20)
    labels = (entity % 6 == 0).astype(np.int64)
    scores = np.clip(0.3 + 0.2 * labels + chance.normal(0, 0.15, 60)[entity], 0, 1)
    clustered = Scored(np.full(1_200, MONDAY * DAY_US), labels, scores, entity)
    alone = replace(clustered, entity=np.arange(1_200))
    wide, narrow = (
        interval(resample({"m": s}, top=5, replicates=100, seed=0)["m"].auc, s.entities) for s in (clustered, alone)
    )
    assert wide is not None
    assert narrow is not None
    assert wide.high - wide.low > 2.5 * (narrow.high - narrow.low)


def test_entities_are_drawn_with_replacement_and_the_same_seed_draws_the_same() -> None:
    first, again, other = ([list(drawn) for drawn in draw(12, 5, seed)] for seed in (1, 1, 2))
    assert first == again != other
    assert {sum(drawn) for drawn in first} == {12}
    assert any(count > 1 for count in first[0])


def test_one_entity_tells_nothing_about_another() -> None:
    found = measure(scored_rows([(0, "a", 1, 0.9), (0, "a", 0, 0.1), (1, "a", 0, 0.2)]), JUDGING)
    assert found.average_precision.value == found.auc.value == 1.0
    assert (found.average_precision.interval, found.entity_precision.interval) == (None, None)
    assert [day.entities for day in found.daily.days] == [1, 0]


def test_a_replicate_without_a_positive_is_left_out_and_counted() -> None:
    rows = [(0, entity, int(entity == 0), 0.9 if entity == 0 else 0.1) for entity in range(4)]
    found = measure(scored_rows(rows), Judging(top=1, threshold=0.5, replicates=200, seed=1))
    assert found.average_precision.interval is not None
    # One of four is missing from a draw of four with probability 0.75 ** 4 = 0.316.
    assert found.average_precision.interval.replicates == pytest.approx(200 * (1 - 0.316), abs=20)


def test_a_model_does_not_differ_from_itself() -> None:
    week = a_week()
    found = compare(week, JUDGING, Champion(CHAMPION, week.scores))
    for estimate in (found.average_precision, found.auc, found.entity_precision):
        assert estimate.interval is not None
        assert (estimate.value, estimate.interval.low, estimate.interval.high) == (0.0, 0.0, 0.0)
    assert found.metrics == metrics(week, 20)


def test_a_better_model_is_surely_better_though_both_are_unsure() -> None:
    week = a_week()
    worse = champion_of(week)
    found, alone = compare(week, JUDGING, worse), measure(week, JUDGING)
    assert found.champion == CHAMPION
    assert found.metrics == metrics(week.with_scores(worse.scores), 20)
    assert found.average_precision.value == alone.average_precision.value - found.metrics.average_precision > 0.05
    assert found.average_precision.interval is not None
    assert alone.average_precision.interval is not None
    assert found.average_precision.interval.low > 0
    assert alone.average_precision.interval.low < found.metrics.average_precision + found.average_precision.value


def test_without_a_champion_the_model_is_held_against_a_guess() -> None:
    week = a_week()
    found = compare(week, JUDGING, None)
    assert found.champion is None
    assert found.metrics.average_precision == week.share
    assert found.metrics.auc == 0.5
    assert found.average_precision.value == metrics(week, 20).average_precision - week.share
    guess = compare(week.with_scores(np.random.default_rng(0).random(week.rows)), JUDGING, None)
    assert guess.auc.interval is not None
    assert guess.auc.interval.low < 0 < guess.auc.interval.high


def test_models_scored_on_other_rows_are_not_compared() -> None:
    with pytest.raises(BadInput, match="the same held-out rows"):
        resample({"a": a_week(), "b": a_week(seed=1)}, top=5, replicates=2, seed=0)


def test_a_day_without_positives_is_a_day() -> None:
    found = measure(scored_rows([(0, 1, 1, 0.9), (0, 2, 0, 0.1), (1, 3, 0, 0.5), (2, 2, 1, 0.2)]), Judging(1, 0.5, 5))
    assert [(day.positives, day.precision) for day in found.daily.days] == [(1, 1.0), (0, 0.0), (1, 1.0)]
    assert found.daily.ceiling == pytest.approx(2 / 3)


def test_the_document_is_named_by_its_content_and_reads_back_as_it_was() -> None:
    spend = Metrics(average_precision=0.6, auc=0.9, entity_precision=0.2)
    whole = an_evaluation(
        champion=champion_of(a_week()),
        clocks=Clocks(
            metrics={"event": spend, "served": spend},
            prices=(ViewPrice(view="spend", late_s=60.0, average_precision=0.01),),
        ),
        fallback=Fallback(model=CHAMPION, service="fraud_fallback", features=("tx_amount",), metrics=spend),
        alarms=[Alarm(name="one_feature", subject="spend:label", evidence="AUC 0.999 alone")],
    )
    for document in (an_evaluation(), whole):
        again = Evaluation.model_validate_json(document.to_json())
        assert again == document
        assert again.hash == document.hash
        assert (
            document.to_json() == orjson.dumps(orjson.loads(document.to_json()), option=orjson.OPT_SORT_KEYS).decode()
        )
        assert "NaN" not in document.to_json()
        assert len(document.to_json()) < 20_000
    assert an_evaluation().hash == an_evaluation().hash != whole.hash
    assert an_evaluation().performance == measure(a_week(), JUDGING)
    assert whole.comparison == compare(a_week(), JUDGING, champion_of(a_week()))


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Metrics(average_precision=float("nan"), auc=0.5, entity_precision=0.0)
