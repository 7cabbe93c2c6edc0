"""Scores that change with labels that nobody knew yet: a view's definition looks too far.

A view over labels must leave a label out until it was known, by its delay or by the time at which the source says so. Worked out
by its definition it may not change when the labels that were not known at a row's time are others, or are not there at all.
"""
# pyarrow's compute functions are made at run time.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lockstep.clock import MICROSECOND, from_micros
from lockstep.contract import FeatureContract
from lockstep.serving.features import build_vectors
from lockstep.training.leaks.alarm import Alarm
from lockstep.views.declare import ARROW_TYPES, EVENT_TIMESTAMP, StoredView
from lockstep.views.exact import value_at_times
from lockstep.views.use_case import ModelRecipe, UseCase

Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From vectors in the contract's order, NaN for null, to a score each."""
_BATCHES = 10
"""So many times at which labels may or may not be known: rows of a batch are asked by what was unknown at its last."""
_NEVER_US = 1 << 60
_Usable = dict[tuple[str, str], NDArray[Any]]


def outcome_columns(recipe: ModelRecipe) -> set[str]:
    """Return the columns that make a table one of labels: tables are append only, so its rows come with their label."""
    return {recipe.label, recipe.label_known_at, *filter(None, [recipe.protocol.group])}


def flip_leaks(
    use_case: UseCase, contract: FeatureContract, sources: Mapping[str, pa.Table], rows: pa.Table, score: Score
) -> list[Alarm]:
    """Return an alarm for each feature of a view that changes with labels which nobody knew at the time of some rows.

    When a label became known its row says, in the column of the spine's name for that, or else in the source's own `known_at`.
    Where that is earlier than the spine says of the same event, or cannot be held against it, it is not believed: then a label
    is known one gap after its event.

    Args:
        use_case: declares the views; its model's gap is how long nobody knows an event's label.
        contract: what the model takes.
        sources: for each stored view of the contract, by its name, the source rows of the keys of `rows`.
        rows: of a training set.
        score: the fitted model's.
    """
    recipe = use_case.model
    labelled = {n for n, source in sources.items() if outcome_columns(recipe).intersection(source.column_names)}
    if not labelled or not rows.num_rows:
        return []
    rows = rows.sort_by(EVENT_TIMESTAMP)
    time_us = rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    real: _Usable = {}
    flipped: _Usable = {}
    dropped: _Usable = {}
    for view in (use_case.view(named.name) for named in contract.views):
        keys, source = rows[view.entity.join_key], sources[view.name]
        values = value_at_times(view, source, keys, time_us)
        others = values, values
        if view.name in labelled:
            others = _with_others(view, source, recipe, _known_us(recipe, view, source, rows), keys, time_us)
        for usable, worked_out in zip((real, flipped, dropped), (values, *others), strict=True):
            usable |= {(view.name, feature): of for feature, of in worked_out.items()}
    before, *after = (score(_vectors(use_case, contract, usable, rows)) for usable in (real, flipped, dropped))
    scores = int(np.any([before != one for one in after], axis=0).sum())
    alarms: list[Alarm] = []
    for named in contract.views:
        for feature in (column.name for column in named.columns):
            of = (named.name, feature)
            changed = np.flatnonzero(_differ(real[of], flipped[of]) | _differ(real[of], dropped[of]))
            if len(changed):
                evidence = (
                    f"with other labels, or none, where none was known yet, it changes in {len(changed)} of {rows.num_rows} "
                    f"held-out rows, the latest at {from_micros(int(time_us[changed[-1]])).isoformat()}; {scores} scores change"
                )
                alarms.append(Alarm("label_without_delay", f"{named.name}:{feature}", evidence))
    return alarms


def _with_others(
    view: StoredView,
    source: pa.Table,
    recipe: ModelRecipe,
    known_us: NDArray[np.int64],
    keys: pa.ChunkedArray,
    time_us: NDArray[np.int64],
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return the view's values at rising times, with other labels where none was known, and without these rows."""
    flipped: list[dict[str, NDArray[Any]]] = []
    dropped: list[dict[str, NDArray[Any]]] = []
    for batch in np.array_split(np.arange(len(time_us)), min(_BATCHES, len(time_us))):
        unknown = pa.array(known_us > time_us[batch].max())
        asked = keys.take(pa.array(batch)), time_us[batch]
        flipped.append(value_at_times(view, _flipped(source, recipe, unknown), *asked))
        dropped.append(value_at_times(view, source.filter(pc.invert(unknown)), *asked))
    names = list(flipped[0])
    whole = [{name: np.concatenate([of[name] for of in parts]) for name in names} for parts in (flipped, dropped)]
    return whole[0], whole[1]


def _known_us(recipe: ModelRecipe, view: StoredView, source: pa.Table, rows: pa.Table) -> NDArray[np.int64]:
    """Return when the label of each source row became known, in microseconds; never, where the column is null."""
    there = recipe.label_known_at in source.column_names
    event_us, known_us = (
        _micros(source, column)
        for column in (view.source.event_time, recipe.label_known_at if there else view.source.known_at)
    )
    held, earlier = _held_against_spine(recipe, view, source, rows, event_us, known_us)
    if earlier or not (held or there):
        return event_us + recipe.gap // MICROSECOND
    return known_us


def _held_against_spine(
    recipe: ModelRecipe,
    view: StoredView,
    source: pa.Table,
    rows: pa.Table,
    event_us: NDArray[np.int64],
    known_us: NDArray[np.int64],
) -> tuple[int, int]:
    """Return how many of the rows' events the source has, and how many labels of these it claims were known earlier.

    An event may have a label more each time it was looked at again: the last of them counts.
    """
    if recipe.label_known_at not in rows.column_names:
        return 0, 0
    key = view.entity.join_key
    claimed = pa.table({"key": source[key], "event": event_us, "claimed": known_us})
    claimed = claimed.group_by(["key", "event"]).aggregate([("claimed", "max")])
    said = pa.table(
        {
            "key": rows[key].cast(source[key].type),
            "event": _micros(rows, EVENT_TIMESTAMP),
            "said": _micros(rows, recipe.label_known_at),
        }
    )
    both = said.join(claimed, ["key", "event"], join_type="inner")
    return both.num_rows, int((both["claimed_max"].to_numpy() < both["said"].to_numpy()).sum())


def _micros(table: pa.Table, column: str) -> NDArray[np.int64]:
    return table[column].cast(ARROW_TYPES["timestamp"]).cast(pa.int64()).fill_null(_NEVER_US).to_numpy()


def _flipped(source: pa.Table, recipe: ModelRecipe, unknown: pa.Array) -> pa.Table:
    """Return the source with the greatest label for each other one, and the least for the greatest, in some rows."""
    for column in {recipe.label, recipe.protocol.group}.intersection(source.column_names):
        values = source[column]
        extremes = pc.min_max(values)
        other = pc.if_else(pc.equal(values, extremes["max"]), extremes["min"], extremes["max"])
        place = source.column_names.index(column)
        source = source.set_column(place, column, pc.if_else(unknown, other, values))
    return source


def _vectors(use_case: UseCase, contract: FeatureContract, usable: _Usable, rows: pa.Table) -> NDArray[np.float64]:
    functions = {view.name: use_case.on_demand_view(view.name).function for view in contract.on_demand}
    inputs = {column.name: rows[column.name].to_pylist() for column in contract.request_inputs}
    return build_vectors(contract, functions, {of: values.tolist() for of, values in usable.items()}, inputs)


def _differ(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    both_null = (one != one) & (other != other)  # noqa: PLR0124 - NaN is unequal to itself
    return (one != other) & ~both_null
