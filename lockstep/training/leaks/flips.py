"""Scores that change when labels are flipped that nobody knew yet: a view's definition looks too far.

A view over labels must leave a label out until it was known, by its delay or by the time at which the source says so. Worked out
by its definition for rows just before a cut, it may not change when the labels of the last label delay before the cut, and all
later ones, are others.
"""
# pyarrow's compute functions are made at run time.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lockstep.clock import from_micros, to_micros
from lockstep.contract import FeatureContract
from lockstep.serving.features import build_vectors
from lockstep.training.leaks.alarm import Alarm
from lockstep.training.leaks.sources import columns_of
from lockstep.views.declare import ARROW_TYPES, EVENT_TIMESTAMP, StoredView
from lockstep.views.exact import value_at_times
from lockstep.views.use_case import UseCase

Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From vectors in the contract's order, NaN for null, to a score each."""
_Usable = dict[tuple[str, str], NDArray[Any]]


def labelled_views(use_case: UseCase, contract: FeatureContract) -> list[StoredView]:
    """Return the stored views that the model reads and that are made of labels."""
    views = [use_case.view(view.name) for view in contract.views]
    return [view for view in views if use_case.model.label in columns_of(view)]


def flip_leaks(
    use_case: UseCase, contract: FeatureContract, sources: Mapping[str, pa.Table], rows: pa.Table, score: Score
) -> list[Alarm]:
    """Return an alarm for each feature of a view that changes with labels which nobody knew before the last of some rows.

    Args:
        use_case: declares the views; its model's gap is how long nobody knows an event's label.
        contract: what the model takes.
        sources: for each stored view of the contract, by its name, the source rows of the keys of `rows`.
        rows: of a training set, close to each other in time: what is asked for at one of them is known by all labels older than
            the gap before the last.
        score: the fitted model's.
    """
    labelled = labelled_views(use_case, contract)
    if not labelled or not rows.num_rows:
        return []
    recipe = use_case.model
    time_us = rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    since = from_micros(int(time_us.max())) - recipe.gap
    real: _Usable = {}
    flipped: _Usable = {}
    for view in (use_case.view(named.name) for named in contract.views):
        keys, source = rows[view.entity.join_key], sources[view.name]
        values = value_at_times(view, source, keys, time_us)
        real |= {(view.name, feature): of for feature, of in values.items()}
        if view in labelled:
            values = value_at_times(view, _flipped(view, source, recipe.label, to_micros(since)), keys, time_us)
        flipped |= {(view.name, feature): of for feature, of in values.items()}
    before, after = (score(_vectors(use_case, contract, usable, rows)) for usable in (real, flipped))
    scores = int((before != after).sum())
    alarms: list[Alarm] = []
    for named in contract.views:
        for feature in (column.name for column in named.columns):
            changed = np.flatnonzero(_differ(real[named.name, feature], flipped[named.name, feature]))
            if len(changed):
                row = rows.slice(int(changed[0]), 1).to_pylist()[0]
                key = named.join_keys[0].name
                evidence = (
                    f"with other labels for events after {since.isoformat()}, none of which was known by the last of "
                    f"{rows.num_rows} held-out rows, it changes in {len(changed)} of them, as for {key} {row[key]} at "
                    f"{row[EVENT_TIMESTAMP].isoformat()}; {scores} scores change"
                )
                alarms.append(Alarm("label_without_delay", f"{named.name}:{feature}", evidence))
    return alarms


def _flipped(view: StoredView, source: pa.Table, label: str, since_us: int) -> pa.Table:
    """Return the source with the greatest label for each other one, and the least for the greatest, in rows after a time."""
    late = pc.greater(source[view.source.event_time].cast(ARROW_TYPES["timestamp"]).cast(pa.int64()), since_us)
    labels = source[label]
    extremes = pc.min_max(labels)
    other = pc.if_else(pc.equal(labels, extremes["max"]), extremes["min"], extremes["max"])
    return source.set_column(source.column_names.index(label), label, pc.if_else(late, other, labels))


def _vectors(use_case: UseCase, contract: FeatureContract, usable: _Usable, rows: pa.Table) -> NDArray[np.float64]:
    functions = {view.name: use_case.on_demand_view(view.name).function for view in contract.on_demand}
    inputs = {column.name: rows[column.name].to_pylist() for column in contract.request_inputs}
    return build_vectors(contract, functions, {of: values.tolist() for of, values in usable.items()}, inputs)


def _differ(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    both_null = (one != one) & (other != other)  # noqa: PLR0124 - NaN is unequal to itself
    return (one != other) & ~both_null
