"""The whole published table: a minute of fitting, which `make test` does not spend."""

# pyarrow's compute functions are made at run time.
# pyright: reportAttributeAccessIssue=false

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

from feature_repo.definitions import use_case
from feature_repo.published_results import PUBLICATION, make_events
from feature_repo.views.customer_spend import customer_spend
from feature_repo.views.terminal_risk import terminal_risk
from lockstep.training import clocks
from lockstep.training.evaluation.evaluate import metrics
from lockstep.training.fit import Given, scored, scorer
from lockstep.training.protocol import TEST, TRAIN
from lockstep.training.reproduction import Prepared, PublishedEvents, PublishedModel, measure, prepare
from lockstep.views import UseCase
from lockstep.views.declare import StoredView
from lockstep.views.exact import DECLARED, WITH_ITSELF, value_at_times

MODELS = {model.name: model for model in PUBLICATION.models}
PACKAGE = "feature_repo"
DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def events() -> PublishedEvents:
    return make_events()


@pytest.fixture(scope="module")
def prepared(events: PublishedEvents) -> Prepared:
    return prepare(use_case, PACKAGE, PUBLICATION, events)


@pytest.mark.parametrize("model", PUBLICATION.models, ids=MODELS)
def test_each_published_figure_comes_out_within_its_tolerance(prepared: Prepared, model: PublishedModel) -> None:
    if not model.importable:
        pytest.skip(f"{model.module} is not installed: `uv pip install {model.distribution}` brings it")
    figures = measure(prepared, model)
    assert len(figures) == 6
    assert [figure for figure in figures if not figure.within] == []


def fitted(prepared: Prepared, estimator: Any) -> Callable[[str], tuple[Given, NDArray[np.float64]]]:
    train = prepared.splits[TRAIN]
    score = scorer(estimator.fit(train.vectors, train.labels))
    return lambda split: (prepared.splits[split], score(prepared.splits[split].vectors).astype(np.float64))


# --- what docs/reproduction.md says of the differences ---


def test_a_regression_that_is_fitted_to_the_end_has_the_published_digits(prepared: Prepared) -> None:
    estimator = MODELS["Logistic regression"].estimators[0]()
    estimator.set_params(logisticregression__tol=1e-10, logisticregression__max_iter=10_000)
    held, scores = fitted(prepared, estimator)(TEST)
    found = metrics(scored(prepared.recipe, held, scores), PUBLICATION.protocol.top)
    assert {name: round(value, 3) for name, value in found.model_dump().items()} == MODELS[
        "Logistic regression"
    ].metrics[TEST].model_dump()


def test_the_first_seed_of_the_forest_has_the_published_digits(prepared: Prepared) -> None:
    held, scores = fitted(prepared, MODELS["Random forest, mean of 3"].estimators[0]())(TEST)
    found = metrics(scored(prepared.recipe, held, scores), PUBLICATION.protocol.top)
    assert {name: round(value, 3) for name, value in found.model_dump().items()} == MODELS[
        "Random forest, mean of 3"
    ].metrics[TEST].model_dump()


@pytest.mark.parametrize("split", [TEST, TRAIN])
def test_equal_scores_in_the_order_of_pandas_sort_give_the_published_daily_top(prepared: Prepared, split: str) -> None:
    tree = MODELS["Decision tree, depth 2"]
    held, scores = fitted(prepared, tree.estimators[0]())(split)
    assert round(daily_top(held, scores), 3) == tree.metrics[split].entity_precision


def test_the_published_daily_top_of_the_unlimited_tree_is_one_that_orders_of_equal_scores_give(
    prepared: Prepared,
) -> None:
    tree = MODELS["Decision tree, unlimited"]
    held, scores = fitted(prepared, tree.estimators[0]())(TEST)
    assert set(scores.tolist()) == {0.0, 1.0}
    chosen = random.Random(0)
    tops = [daily_top(held, scores, chosen) for _ in range(50)]
    assert min(tops) < tree.metrics[TEST].entity_precision < max(tops)


# --- what the figures show, and what they do not ---


def counted_after(events: PublishedEvents, delay: timedelta) -> tuple[UseCase, PublishedEvents]:
    """The use case and its events, but labels are known, and count, this long after their payment."""
    views = tuple(replace(v, delay=delay) if v is terminal_risk else v for v in use_case.views)
    labels = events.sources["labels"]
    known = pc.add(labels["tx_datetime"], pa.scalar(delay, pa.duration("us")))
    labels = labels.set_column(labels.column_names.index("labelled_at"), "labelled_at", known)
    return replace(use_case, views=views), replace(events, sources={**events.sources, "labels": labels})


@pytest.mark.parametrize("days", [6, 8])
@pytest.mark.parametrize("name", ["Logistic regression", "Decision tree, depth 2"])
def test_labels_that_count_a_day_early_or_late_put_figures_outside(
    events: PublishedEvents, name: str, days: int
) -> None:
    case, other = counted_after(events, timedelta(days=days))
    moved = prepare(case, PACKAGE, PUBLICATION, other)
    far = [figure for figure in measure(moved, MODELS[name]) if not figure.within]
    assert {figure.metric for figure in far} >= {"average_precision"}
    assert {np.sign(figure.difference) for figure in far} == {1.0 if days < 7 else -1.0}


@pytest.mark.parametrize("name", ["Logistic regression", "Decision tree, depth 2"])
def test_a_payment_that_counts_twice_in_its_cards_windows_does_not_show(
    events: PublishedEvents, prepared: Prepared, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(view: StoredView, *given: Any, before: Any) -> Any:
        return value_at_times(view, *given, before=before, reach=WITH_ITSELF if view is customer_spend else DECLARED)

    monkeypatch.setattr(clocks, "value_at_times", twice)
    double = prepare(use_case, PACKAGE, PUBLICATION, events)
    assert (double.splits[TEST].vectors > prepared.splits[TEST].vectors).sum() > 3 * len(prepared.splits[TEST].labels)
    assert [figure for figure in measure(double, MODELS[name]) if not figure.within] == []


def daily_top(held: Given, scores: NDArray[np.float64], chosen: random.Random | None = None) -> float:
    """The daily top with cards of one score in an order chosen at random, or in the one that pandas' default sort leaves."""
    days = held.rows["event_timestamp"].cast(pa.int64()).to_numpy() // DAY_US
    cards = held.rows["customer_id"].to_numpy()
    rows = pd.DataFrame({"day": days, "card": cards, "positive": held.labels, "score": scores})
    found: set[int] = set()
    shares: list[float] = []
    for day in sorted(set(days.tolist())):
        left = rows[(rows["day"] == day) & ~rows["card"].isin(list(found))].groupby("card").max()
        if chosen is None:
            ranked = left.sort_values(by="score", ascending=False)
        else:
            order = chosen.sample(range(len(left)), len(left))
            ranked = left.iloc[order].sort_values(by="score", ascending=False, kind="stable")
        top = ranked.head(PUBLICATION.protocol.top)
        hits = top.index[top["positive"] == 1].tolist()
        found.update(hits)
        shares.append(len(hits) / PUBLICATION.protocol.top)
    return float(np.mean(shares))
