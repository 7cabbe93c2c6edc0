"""Two clocks for the same views: what ticks show, as served, and what the windows hold at each row's own time.

Their difference, in what a model is worth, is the price of staleness.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lockstep.clock import from_micros
from lockstep.contract import FeatureContract
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange, connect
from lockstep.serving.features import Function, Values, build_vectors, feature_matrix, load_functions
from lockstep.settings import Settings
from lockstep.training.evaluation.document import Clocks, Metrics, ViewPrice
from lockstep.training.evaluation.evaluate import metrics
from lockstep.training.fit import given, scored
from lockstep.training.protocol import TEST, TRAIN
from lockstep.views.declare import EVENT_TIMESTAMP, StoredView
from lockstep.views.exact import value_at_times
from lockstep.views.use_case import ModelRecipe, UseCase
from lockstep.views.windowed import WindowedView

SERVED = "served"
EXACT = "exact"


@dataclass(frozen=True)
class ExactFeatures:
    """A training set's features by the exact clock.

    Attributes:
        vectors: rows by features in the contract's order, before the policy.
        of: by stored view, which columns are made of it, alone or with others.
    """

    vectors: NDArray[np.float64]
    of: Mapping[str, NDArray[np.int64]]


def exact_features(
    settings: Settings, use_case: UseCase, lake: Lake, contract: FeatureContract, rows: pa.Table
) -> ExactFeatures:
    """Work the features of entity rows out again from the sources of their views, at each row's own time.

    Args:
        settings: names the use case that has the on-demand functions.
        use_case: declares the views.
        lake: has the sources; those in the contract's cut are read as they were then.
        contract: lists the features.
        rows: join keys, `event_timestamp` and request inputs.

    Raises:
        SchemaDrift: an on-demand function is not what the contract names.
    """
    cut = contract.cut.snapshots
    times = _times(rows)

    def source(view: StoredView) -> pa.Table:
        return _source(settings, lake, view, cut.get(view.source.table), times)

    functions = load_functions(contract, settings.use_case)
    return ExactFeatures(exact_vectors(use_case, contract, functions, rows, source), columns_of(contract))


def exact_vectors(
    use_case: UseCase,
    contract: FeatureContract,
    functions: Mapping[str, Function],
    rows: pa.Table,
    source: Callable[[StoredView], pa.Table],
    before: Mapping[str, NDArray[np.int64]] | None = None,
) -> NDArray[np.float64]:
    """Return the vectors of entity rows by the exact clock: rows by features in the contract's order, before the policy.

    Args:
        use_case: declares the views.
        contract: lists the features.
        functions: its on-demand functions, from `load_functions`.
        rows: join keys, `event_timestamp` and request inputs.
        source: gives the rows of a view's source, those that can matter at least. It is asked view by view.
        before: by source, where each row stands in it itself; what that does is in `value_at_times`.
    """
    times, places = _times(rows), before or {}
    usable: dict[tuple[str, str], Values] = {}
    for described in contract.views:
        view = use_case.view(described.name)
        keys = rows[view.entity.join_key].combine_chunks()
        values = value_at_times(view, source(view), keys, times, before=places.get(view.source.table))
        usable |= {(view.name, column.name): values[column.name] for column in described.columns}
    inputs: dict[str, Values] = {column.name: rows[column.name].to_numpy() for column in contract.request_inputs}
    return build_vectors(contract, functions, usable, inputs)


def columns_of(contract: FeatureContract) -> dict[str, NDArray[np.int64]]:
    """Return, by stored view, the numbers of the features that are made of it."""
    made_of = {view.name: {source for source, _ in view.reads} for view in contract.on_demand}
    return {
        view.name: np.array(
            [n for n, f in enumerate(contract.features) if view.name in made_of.get(f.view, {f.view})], dtype=np.int64
        )
        for view in contract.views
    }


def lateness(view: StoredView) -> timedelta:
    """Return how much later than its events a value is readable, on average: half a tick, and both lags."""
    return view.every / 2 + view.compute_lag + view.visible_lag


def price(
    recipe: ModelRecipe,
    contract: FeatureContract,
    rows: pa.Table,
    exact: ExactFeatures,
    views: Sequence[StoredView],
    served: Metrics,
) -> Clocks:
    """Fit the recipe anew with exact features, all of them and then those of one view alone, and return what that changes.

    Each model is fitted and judged by one clock, as it would be if that clock were the one that serves. A feature that is made
    of two views is exact in both prices.

    Args:
        recipe: what is fitted.
        contract: lists the features.
        rows: the training set.
        exact: its features by the exact clock.
        views: the contract's stored ones.
        served: the metrics of the model as it is.
    """

    def judged(columns: NDArray[np.int64]) -> Metrics:
        values = feature_matrix(contract, rows)
        values[:, columns] = exact.vectors[:, columns]
        train, test = (given(recipe, contract, rows, split, values) for split in (TRAIN, TEST))
        estimator = recipe.estimator().fit(train.vectors[train.answered], train.labels[train.answered])
        return metrics(scored(recipe, test, test.scores(estimator)), recipe.protocol.top)

    at_once = judged(np.unique(np.concatenate(list(exact.of.values()))))
    alone = {view.name: at_once if len(views) == 1 else judged(exact.of[view.name]) for view in views}
    prices = tuple(
        ViewPrice(
            view=view.name,
            late_s=lateness(view).total_seconds(),
            average_precision=alone[view.name].average_precision - served.average_precision,
        )
        for view in views
    )
    return Clocks(metrics={SERVED: served, EXACT: at_once}, prices=prices)


def _times(rows: pa.Table) -> NDArray[np.int64]:
    return rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()


def _source(
    settings: Settings, lake: Lake, view: StoredView, snapshot: int | None, times: NDArray[np.int64]
) -> pa.Table:
    """Read the rows of a view's source that can matter to values at these times."""
    within = None
    if isinstance(view, WindowedView) and len(times):
        reach = view.delay + max(view.windows)
        first = from_micros(int(times.min())) - reach
        within = TimeRange(view.source.event_time, first, from_micros(int(times.max())) + timedelta.resolution)
    with connect(settings) as connection:
        lake.register(
            connection, "source", view.source.table, columns=view.source_columns, snapshot_id=snapshot, within=within
        )
        return connection.sql("SELECT * FROM source").to_arrow_table()
