"""The exact clock: the value of a stored view at any time, without ticks and lags.

The window of length W, delay d, at time t holds the rows of a key with an event time in

    (t - d - W, t - d]

that were known at t. A row that happened at u and became known at k enters at `max(u + d, k)` and leaves at `u + d + W`, so a
window is what has entered less what has left: two places found by binary search, and a difference of running sums. Without
a delay a window ends just before the row that asks: rows at t itself count only as far as they stand before it in the source.
That is how the Fraud Detection Handbook's pandas windows see equal times, once an on-demand function has added the row itself
(https://fraud-detection-handbook.github.io, BaselineFeatureTransformation).

Ticks hold `[T - d - W, T - d)` instead, and a ttl after which a quiet key has no value; here such a key has empty windows.
"""
# pyarrow's compute functions are made at run time.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lockstep.clock import MICROSECOND
from lockstep.errors import BadInput, NotYetSupported, UseCaseError, nearest
from lockstep.views.declare import StoredView
from lockstep.views.exact_rows import Asked, History, Keys, SourceRows, column, count_below
from lockstep.views.latest import LatestView
from lockstep.views.windowed import Measure, WindowedView

_Rows = Literal["past", "future", "all"]
_LARGEST_ROOT = 3_037_000_499  # of the squares of 64 bits
_LOW = (1 << 32) - 1
# Longer than all of time (year 1 to 9999), and short enough that a time less two of them has 64 bits.
_EVER_US = 1 << 60


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Which rows a window takes in. The default is what the view declares; anything else is a leak, to hold it against.

    Attributes:
        rows: "past": windows end at `t - delay`; "future": they are `[t, t + W)`; "all": every row of the key, whatever its
            time, in windows of any length. Rows of the future and of "all" count whenever they became known.
        delay: how far windows of the past lie in the past, instead of the view's.
        heed_known: whether a row of the past counts only from the time at which it became known.
        own: whether, in windows of the past without a delay, every row at t counts, the one that asks among them.

    Raises:
        BadInput: the delay is negative, or there are no such rows.
    """

    rows: _Rows = "past"
    delay: timedelta | None = None
    heed_known: bool = True
    own: bool = False

    def __post_init__(self) -> None:
        """Refuse a word that would be taken for the past, and a delay that is a look ahead under another name."""
        if self.rows not in (known := get_args(_Rows)):
            raise BadInput(f"windows take in no rows {self.rows!r}", hint=nearest(self.rows, known))
        if self.delay is not None and self.delay < timedelta(0):
            raise BadInput(f"a window's delay is {self.delay}", hint='rows="future" looks ahead')


DECLARED = Reach()
"""What the view declares."""
AT_ONCE = Reach(delay=timedelta(0), heed_known=False)
"""Windows that end at t, of rows that only become known later."""
WITH_ITSELF = Reach(delay=timedelta(0), heed_known=False, own=True)
"""Windows that end at t and hold the row that asks."""
FUTURE = Reach(rows="future")
"""Windows that begin at t."""
WHOLE_HISTORY = Reach(rows="all")
"""Every row there is."""


def value_at_times(
    view: StoredView,
    source: pa.Table,
    keys: Keys,
    times_us: NDArray[np.int64],
    *,
    before: NDArray[np.int64] | None = None,
    reach: Reach = DECLARED,
) -> dict[str, NDArray[Any]]:
    """Return each stored feature, in order, of each key at its time: one array a feature, as long as `keys`.

    A windowed view has int64 sums and float64 ratios, never null: a key that is null or has no rows has empty windows.
    A latest view has float64 for numbers and booleans, NaN for null, and object arrays for the others, None for null: the values
    of the newest row, by event time, then known time, then the values, that happened before t and was known at t.

    Rows that ticks quarantine never count: those without a key or a time, or known before they happened. A null that is summed
    counts as 0. Rows of other keys are not looked at.

    Args:
        view: whose values.
        source: the rows of its source, in any order.
        keys: whose values, of the type of the view's join key.
        times_us: when, in microseconds since 1970-01-01T00:00Z.
        before: where each row that asks stands in `source` itself: in windows without a delay, of the rows that enter at its very
            time those count that stand before it. None counts none of them.
        reach: which rows a windowed view's windows take in, for what-if.

    Raises:
        BadInput: keys, times and `before` are not of one length, or not of their types.
        NotYetSupported: the view is of a kind that is not worked out here, or `reach` is given for one without windows.
        SchemaDrift: a column of the source is missing or not what the view declares.
        UseCaseError: a sum or square has more than 64 bits, or an integer attribute more digits than float64.
    """
    if not isinstance(view, WindowedView | LatestView):
        raise NotYetSupported(f"view {view.name} is of the kind {view.kind!r}, whose values are not worked out again")
    asked = Asked.of(view, keys, times_us, before)
    rows = SourceRows.of(view, source, asked.keys)
    if isinstance(view, WindowedView):
        return _sums(view, source, rows, asked, reach)
    if reach != DECLARED:
        raise NotYetSupported(f"view {view.name} has no windows, which {reach} is about")
    return _newest(view, source, rows, asked)


@dataclass(frozen=True)
class _Window:
    """What a window holds: of the rows in order of entry those up to `entered`, less those up to `left` in order of leaving.

    Rows for which `ever` is False are known too late to enter at all; None where there are none.
    """

    by_entry: History
    entered: NDArray[np.int64]
    by_exit: History
    left: NDArray[np.int64]
    ever: NDArray[np.bool_] | None = None

    def sums(self, amounts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sum of the amounts in each window, modulo 2**64: right wherever it has 64 bits itself."""
        if self.ever is not None:
            amounts = amounts * self.ever
        come = _running(amounts[self.by_entry.order])
        gone = come if self.by_exit is self.by_entry else _running(amounts[self.by_exit.order])
        return come[self.entered] - gone[self.left]


def _sums(
    view: WindowedView, source: pa.Table, rows: SourceRows, asked: Asked, reach: Reach
) -> dict[str, NDArray[Any]]:
    amounts = {measure.name: _amounts(view, measure, source, rows) for measure in view.measures}
    windows = _windows(view.windows, view.delay if reach.delay is None else reach.delay, rows, asked, reach)
    found: dict[str, NDArray[Any]] = {}
    for length, window in zip(view.windows, windows, strict=True):
        for name, values in amounts.items():
            found[view.column(name, length)] = _exact_sums(view, name, window, values, rows)
        for ratio in view.ratios:
            above, below = (found[view.column(name, length)] for name in (ratio.numerator, ratio.denominator))
            quotient = np.full(len(below), ratio.empty, np.float64)
            np.divide(above.astype(np.float64), below.astype(np.float64), out=quotient, where=below != 0)
            found[view.column(ratio.name, length)] = quotient
    return {name: found[name] for name in view.features}


def _windows(
    lengths: Sequence[timedelta], delay: timedelta, rows: SourceRows, asked: Asked, reach: Reach
) -> list[_Window]:
    number, now = asked.number, asked.time_us
    by_event = rows.by(rows.event_us)
    if reach.rows == "all":
        everything = _Window(by_event, by_event.starts[number + 1], by_event, by_event.starts[number])
        return [everything] * len(lengths)
    if reach.rows == "future":
        left = by_event.reach(number, now)
        return [_Window(by_event, by_event.reach(number, now + _us(length)), by_event, left) for length in lengths]
    away = _us(delay)
    enters_us = np.maximum(rows.event_us + away, rows.known_us) if reach.heed_known else rows.event_us + away
    by_entry = rows.by(enters_us)
    if away or reach.own:
        entered = by_entry.reach(number, now + 1)
    else:
        entered = by_entry.reach(number, now)
        if asked.before is not None:
            entered = count_below(
                rows.position[by_entry.order], entered, by_entry.reach(number, now + 1), asked.before
            )
    windows: list[_Window] = []
    for length in lengths:
        ever = enters_us < rows.event_us + (away + _us(length))
        left = by_event.reach(number, now - (away + _us(length)) + 1)
        windows.append(_Window(by_entry, entered, by_event, left, None if ever.all() else ever))
    return windows


def _us(duration: timedelta) -> int:
    return min(duration // MICROSECOND, _EVER_US)


def _amounts(view: WindowedView, measure: Measure, source: pa.Table, rows: SourceRows) -> NDArray[np.int64]:
    if measure.column is None:
        return np.ones(len(rows.number), np.int64)
    values = column(view, source, measure.column, "int64")
    amounts = (values.fill_null(0) if values.null_count else values).to_numpy()[rows.position]
    if not measure.squared:
        return amounts
    if _most(amounts) > _LARGEST_ROOT:
        raise _beyond(view, f"the square of a value of {measure.column}")
    return amounts * amounts


def _exact_sums(
    view: WindowedView, measure: str, window: _Window, amounts: NDArray[np.int64], rows: SourceRows
) -> NDArray[np.int64]:
    """Return the sums, which have 64 bits: if they need not have by the size of the amounts, their halves are summed apart."""
    rows_of_a_key = int(np.diff(window.by_entry.starts).max())
    if rows_of_a_key * _most(amounts) < 1 << 63:
        return window.sums(amounts)
    low = window.sums(amounts & _LOW)  # at most 2**31 rows of 2**32: no sum of halves runs over
    high = window.sums(amounts >> 32) + (low >> 32)
    if ((high < -(1 << 31)) | (high >= 1 << 31)).any():
        raise _beyond(view, f"a sum of {measure}")
    return (high << 32) | (low & _LOW)


def _beyond(view: WindowedView, what: str) -> UseCaseError:
    return UseCaseError(
        f"view {view.name}: a sum or square left 64 bits: {what}",
        hint="sum a coarser unit, or over shorter windows; or the source holds a value that cannot be",
    )


def _most(values: NDArray[np.int64]) -> int:
    """Return the greatest absolute value; in Python, for -2**63 has none of 64 bits."""
    return max(int(values.max()), -int(values.min())) if len(values) else 0


def _running(values: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def _newest(view: LatestView, source: pa.Table, rows: SourceRows, asked: Asked) -> dict[str, NDArray[Any]]:
    columns = [
        _storable(column(view, source, name, dtype)).take(rows.position) for name, dtype in view.columns.items()
    ]
    sorted_by = {"number": pa.array(rows.number), "event": pa.array(rows.event_us), "known": pa.array(rows.known_us)}
    ranked = pa.table({**sorted_by, **{f"value_{n}": values for n, values in enumerate(columns)}})
    oldest_first = pc.sort_indices(
        ranked, [(name, "ascending", "at_start") for name in ranked.column_names]
    ).to_numpy()
    rank = np.empty(len(oldest_first), np.int64)
    rank[oldest_first] = np.arange(len(rank))
    by_arrival = rows.by(np.maximum(rows.event_us + 1, rows.known_us))  # before t is up to t less a microsecond
    # A later key's ranks are greater than all of an earlier one's, so the greatest so far is of the key itself.
    newest = np.maximum.accumulate(rank[by_arrival.order])
    arrived = by_arrival.reach(asked.number, asked.time_us + 1)
    seen = arrived > by_arrival.starts[asked.number]
    answers = np.full(len(seen), -1, np.int64)  # the last entry, which is null
    answers[seen] = oldest_first[newest[arrived[seen] - 1]]
    return {name: _with_null(view, name, values)[answers] for name, values in zip(view.columns, columns, strict=True)}


def _storable(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return what the online layout holds of values: no NaN, and times in whole seconds."""
    if pa.types.is_floating(values.type):
        return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return pc.floor_temporal(values, unit="second") if pa.types.is_timestamp(values.type) else values


def _with_null(view: LatestView, name: str, values: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column as callers want it, and a null after its last value."""
    if view.columns[name] not in ("bool", "int32", "int64", "float32", "float64"):
        objects = np.empty(len(values) + 1, object)
        objects[:-1] = values.to_pylist()
        return objects
    try:
        numbers = values.cast(pa.float64())
    except pa.ArrowInvalid as invalid:
        raise UseCaseError(f"view {view.name}: {name} has a value that float64 cannot hold: {invalid}") from invalid
    return np.append(numbers.fill_null(np.nan).to_numpy(), np.nan)
