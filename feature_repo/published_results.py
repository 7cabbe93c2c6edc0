"""The results table of the Fraud Detection Handbook, and how `lockstep reproduce` makes it: five models on the published data.

The estimators are those of the handbook (Le Borgne et al., https://fraud-detection-handbook.github.io, chapter 3, *Baseline
fraud detection system*), and so are the figures: the tables of the test and of the training week there.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from feature_repo.services import fraud_v1
from feature_repo.simulator import World, simulate_published
from lockstep.clock import to_micros
from lockstep.training.evaluation.document import Metrics
from lockstep.training.protocol import TEST, TRAIN
from lockstep.training.reproduction import Publication, PublishedEvents, PublishedModel, Size
from lockstep.training.span import Span
from lockstep.views import Protocol
from lockstep.views.declare import EVENT_TIMESTAMP

_POSITION = "position"


def make_events() -> PublishedEvents:
    """Return the published payments of all 183 days, and those of the days that are fitted and judged on as the spine."""
    return events_of(simulate_published())


def events_of(world: World) -> PublishedEvents:
    """Return the payments of a world whose two tables are in order of the id: each label follows its payment by a constant."""
    payments, labels = world.transactions, world.labels
    times = payments["tx_datetime"].cast(pa.int64()).to_numpy()
    first, last = np.searchsorted(times, [to_micros(PUBLICATION.span.start), to_micros(PUBLICATION.span.end)])
    length = last - first
    spine = (
        payments.slice(first, length)
        .select(["customer_id", "terminal_id", "tx_datetime", "amount_cents"])
        .rename_columns(["customer_id", "terminal_id", EVENT_TIMESTAMP, "amount_cents"])
    )
    for column in ("tx_fraud", "tx_fraud_scenario", "labelled_at"):
        spine = spine.append_column(column, labels[column].slice(first, length))
    spine = spine.append_column(_POSITION, pa.array(np.arange(first, last)))
    return PublishedEvents({"transactions": payments, "labels": labels}, spine, {"transactions": _POSITION})


def _scaled(make: Callable[[], Any]) -> Any:
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - scikit-learn's import takes 2 s
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    return make_pipeline(StandardScaler(), make())


def _logistic_regression() -> Any:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    return LogisticRegression(random_state=0)


def _tree(depth: int | None) -> Any:
    from sklearn.tree import DecisionTreeClassifier  # noqa: PLC0415

    return DecisionTreeClassifier(max_depth=depth, random_state=0)


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    return RandomForestClassifier(random_state=seed, n_jobs=-1)


def _boosting() -> Any:
    from xgboost import XGBClassifier  # noqa: PLC0415 # pyright: ignore[reportMissingImports] - may not be installed

    # What its defaults were when the figures were published.
    return XGBClassifier(random_state=0, tree_method="exact", base_score=0.5)


def _model(
    name: str,
    makes: Sequence[Callable[[], Any]],
    *,
    test: tuple[float, float, float],
    train: tuple[float, float, float],
    tolerance: float,
    module: str = "",
    distribution: str = "",
) -> PublishedModel:
    """Return a model with the figures in the order in which they are published: AUC, average precision, card precision."""
    published = {
        split: Metrics(auc=auc, average_precision=average_precision, entity_precision=card_precision)
        for split, (auc, average_precision, card_precision) in ((TEST, test), (TRAIN, train))
    }
    estimators = tuple(partial(_scaled, make) for make in makes)
    return PublishedModel(name, estimators, published, tolerance, module, distribution)


def _midnight(month: int, day: int) -> datetime:
    return datetime(2018, month, day, tzinfo=UTC)


PUBLICATION = Publication(
    where="https://fraud-detection-handbook.github.io, chapter 3, Baseline fraud detection system",
    service=fraud_v1,
    span=Span(start=_midnight(7, 25), train_end=_midnight(8, 1), test_start=_midnight(8, 8), end=_midnight(8, 15)),
    protocol=Protocol(entity="customer_id", top=100, group="tx_fraud_scenario"),
    sizes={TRAIN: Size(67_240, 598), TEST: Size(58_264, 385)},
    models=(
        _model(
            "Logistic regression",
            [_logistic_regression],
            test=(0.871, 0.606, 0.291),
            train=(0.892, 0.663, 0.419),
            tolerance=0.005,
        ),
        _model(
            "Decision tree, depth 2",
            [partial(_tree, 2)],
            test=(0.763, 0.496, 0.241),
            train=(0.802, 0.586, 0.394),
            tolerance=0.005,
        ),
        _model(
            "Decision tree, unlimited",
            [partial(_tree, None)],
            test=(0.788, 0.309, 0.243),
            train=(1.000, 1.000, 0.576),
            tolerance=0.01,
        ),
        # From one seed to the next, the average precision of a forest of 100 trees differs by as much as the tolerance of others.
        _model(
            "Random forest, mean of 3",
            [partial(_forest, seed) for seed in range(3)],
            test=(0.867, 0.658, 0.287),
            train=(1.000, 1.000, 0.576),
            tolerance=0.01,
        ),
        _model(
            "XGBoost",
            [_boosting],
            test=(0.862, 0.639, 0.273),
            train=(1.000, 0.995, 0.574),
            tolerance=0.005,
            module="xgboost",
            distribution="xgboost-cpu",
        ),
    ),
)
