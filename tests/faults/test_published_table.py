"""The whole published table: a minute of fitting, which `make test` does not spend."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from feature_repo.definitions import use_case
from feature_repo.published_results import PUBLICATION, make_events
from lockstep.training.evaluation.evaluate import metrics
from lockstep.training.fit import Given, scored, scorer
from lockstep.training.protocol import TEST, TRAIN
from lockstep.training.reproduction import Prepared, PublishedModel, measure, prepare

MODELS = {model.name: model for model in PUBLICATION.models}
DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(use_case, "feature_repo", PUBLICATION, make_events())


@pytest.mark.parametrize("model", PUBLICATION.models, ids=MODELS)
def test_each_published_figure_comes_out_within_its_tolerance(prepared: Prepared, model: PublishedModel) -> None:
    if not model.importable:
        pytest.skip(f"{model.module} is not installed: `uv pip install {model.distribution}` brings it")
    figures = measure(prepared, model)
    assert len(figures) == 6
    assert [figure for figure in figures if not figure.within] == []


def fitted(prepared: Prepared, estimator: Any) -> Callable[[str], tuple[Given, Any]]:
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


def daily_top(held: Given, scores: Any) -> float:
    """The daily top with cards of one score in the order in which pandas' default sort, which keeps none, leaves them."""
    days = held.rows["event_timestamp"].cast(pa.int64()).to_numpy() // DAY_US
    cards = held.rows["customer_id"].to_numpy()
    rows = pd.DataFrame({"day": days, "card": cards, "positive": held.labels, "score": scores})
    found: set[int] = set()
    shares: list[float] = []
    for day in sorted(set(days.tolist())):
        left = rows[(rows["day"] == day) & ~rows["card"].isin(list(found))]
        top = left.groupby("card").max().sort_values(by="score", ascending=False).head(PUBLICATION.protocol.top)
        hits = top.index[top["positive"] == 1].tolist()
        found.update(hits)
        shares.append(len(hits) / PUBLICATION.protocol.top)
    return float(np.mean(shares))
