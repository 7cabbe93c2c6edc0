"""What a view's table says and its definition does not: rows of the table, worked out again from the source.

Where a windowed view's stored value is not the one declared, it is held against what it would be if the table had been written
with a leak. A value that is neither may be one of another kind, as is any that a latest view does not declare.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lockstep.clock import MICROSECOND, from_micros
from lockstep.training.leaks.alarm import Alarm, AlarmName
from lockstep.views.declare import ARROW_TYPES, CREATED_TIMESTAMP, EVENT_TIMESTAMP, StoredView
from lockstep.views.exact import FUTURE, WHOLE_HISTORY, Reach, value_at_times
from lockstep.views.latest import LatestView
from lockstep.views.naive import SourceRow, nothing_of, value_at
from lockstep.views.windowed import WindowedView

_FITS = 0.9
_FEWEST = 5
_MOST_READS = 20
_EVER_US = 1 << 60
# What is worked out without an engine takes half a microsecond a row, window and measure.
_MOST_SOURCE_ROWS = 300_000


@dataclass(frozen=True)
class Audit:
    """What holding a sample of a table's rows against its source gave.

    Attributes:
        alarms: one for each feature that leaks.
        rows: rows looked at.
        unexplained: for each feature how many of them are not what is declared, and none of the leaks looked for.
    """

    alarms: tuple[Alarm, ...]
    rows: int
    unexplained: Mapping[str, int]


@dataclass(frozen=True)
class _Hypothesis:
    """How a leak would have written a value: which rows its windows take in, at which time after the row's own."""

    name: AlarmName
    words: str
    reach: Reach
    later_us: int = 0


def audit(
    view: WindowedView | LatestView, label: str, stored: pa.Table, source: pa.Table, *, tolerated: float = 0.0
) -> Audit:
    """Hold rows of a view's table against the value declared, of what was known by the row's created time, and against leaks.

    A feature leaks if, of its values that are not the declared ones, 9 in 10 are those of one leak, and at least 5 of these are
    more than what empty windows give: a table of zeros is wrong in another way.

    Args:
        view: the view.
        label: the column that is a label, if the source has it.
        stored: some rows of the view's table.
        source: all rows of these keys in its source.
        tolerated: the share of rows that may be wrong in another way before that is an alarm too.
    """
    declared = _declared(view, stored, source)
    stored = stored.slice(0, len(declared[next(iter(declared))]))
    wrong = {name: _differing(view, stored[name], declared[name]) for name in view.features}
    alarms = _leaks(view, label, stored, source, declared, wrong) if isinstance(view, WindowedView) else {}
    times, unexplained = _micros(stored, EVENT_TIMESTAMP), dict[str, int]()
    for name, rows in wrong.items():
        differing = int(rows.sum())
        if not differing or name in alarms:
            continue
        unexplained[name] = differing
        if differing > tolerated * stored.num_rows:
            evidence = (
                f"{differing} of {stored.num_rows} sampled rows are not what the view declares, by no leak known here, the "
                f"latest at {from_micros(int(times[rows].max())).isoformat()}"
            )
            alarms[name] = Alarm("not_as_declared", f"{view.name}:{name}", evidence)
    found = tuple(alarms[name] for name in view.features if name in alarms)
    return Audit(found, stored.num_rows, unexplained)


def _leaks(
    view: WindowedView,
    label: str,
    stored: pa.Table,
    source: pa.Table,
    declared: Mapping[str, list[Any]],
    wrong: Mapping[str, NDArray[np.bool_]],
) -> dict[str, Alarm]:
    """Return an alarm for each feature whose wrong values are those of one leak."""
    if not any(rows.any() for rows in wrong.values()):
        return {}
    keys, time_us = stored[view.entity.join_key], _micros(stored, EVENT_TIMESTAMP)
    leaks = {
        leak: value_at_times(view, source, keys, time_us + leak.later_us, reach=leak.reach)
        for leak in _hypotheses(view, label)
    }
    alarms: dict[str, Alarm] = {}
    for name, rows in wrong.items():
        there = stored[name].to_numpy()
        fitting = {leak: rows & _same(there, found[name]) for leak, found in leaks.items()}
        best = max(fitting, key=lambda leak: fitting[leak].sum())
        fits, differing = fitting[best], int(rows.sum())
        telling = fits & ~_same(there, np.full(len(rows), nothing_of(view)[name]))
        if telling.sum() >= _FEWEST and fits.sum() >= _FITS * differing:
            place = int(np.flatnonzero(telling)[0])
            evidence = (
                f"{differing} of {stored.num_rows} sampled rows are not what the view declares; {int(fits.sum())} of them are "
                f"its values over {best.words}, as {there[place]} instead of {declared[name][place]} at "
                f"{from_micros(int(time_us[place])).isoformat()}"
            )
            alarms[name] = Alarm(best.name, f"{view.name}:{name}", evidence)
    return alarms


def _differing(view: StoredView, there: pa.ChunkedArray, declared: Sequence[Any]) -> NDArray[np.bool_]:
    if isinstance(view, WindowedView):
        return ~_same(there.to_numpy(), np.array(declared))
    said = pa.array(declared, there.type).to_pylist()
    return np.array([one != other for one, other in zip(there.to_pylist(), said, strict=True)], np.bool_)


def _hypotheses(view: WindowedView, label: str) -> list[_Hypothesis]:
    """Return what is tried, the likeliest first; ticks' windows are half-open, others' hold their end."""
    at_once = Reach(delay=timedelta(0), heed_known=False, own=True)
    closed = Reach(delay=view.delay, heed_known=False, own=True)
    found = [
        _Hypothesis("future_window", "windows that begin at the row's time", FUTURE),
        _Hypothesis("future_window", "windows that begin after the row's time", FUTURE, 1),
        _Hypothesis("current_row", "windows that hold what happened at their very end", closed),
        _Hypothesis("whole_history_rate", "all rows of the key, earlier and later", WHOLE_HISTORY),
    ]
    if view.delay or label in view.value_columns:
        return [
            _Hypothesis("label_without_delay", "windows without the delay, known or not", at_once, -1),
            _Hypothesis("label_without_delay", "windows without the delay that hold their end", at_once),
            *found,
        ]
    return found


def _declared(view: WindowedView | LatestView, stored: pa.Table, source: pa.Table) -> dict[str, list[Any]]:
    """Return the values declared for the first rows of `stored`: as many as looking at so many source rows allows.

    Declared are those of what was known by a row's created time, or by any time since its tick: a correction, created long after,
    says what was read the first time, and what was known may have come to the lake too late to be read.
    """
    rows = _by_key(view, source)
    reach = _EVER_US
    if isinstance(view, WindowedView):
        reach = (view.delay + max(view.windows) + view.ttl + view.every) // MICROSECOND + 1
    told: list[Mapping[str, Any]] = []
    looked_at = 0
    keys = stored[view.entity.join_key].to_pylist()
    times = zip(_micros(stored, EVENT_TIMESTAMP).tolist(), _micros(stored, CREATED_TIMESTAMP).tolist(), strict=True)
    for place, (key, (event, created)) in enumerate(zip(keys, times, strict=True)):
        of_key = rows[key]
        first, last = (bisect_left(of_key, time, key=lambda row: row.event_us) for time in (event - reach, event))
        looked_at += last - first
        if told and looked_at > _MOST_SOURCE_ROWS:
            break
        told.append(_nearest(view, of_key[first:last], event, created, stored.slice(place, 1)))
    return {name: [values[name] for values in told] for name in view.features}


def _nearest(
    view: WindowedView | LatestView, rows: Sequence[SourceRow], event: int, created: int, there: pa.Table
) -> Mapping[str, Any]:
    """Return a row's values as they were known by its created time, or earlier, where more features are as the table says."""

    def known_by(time: int) -> Mapping[str, Any]:
        return value_at(view, rows, event, time) or nothing_of(view)

    def wrong(values: Mapping[str, Any]) -> int:
        return sum(bool(_differing(view, there[name], [values[name]])[0]) for name in view.features)

    best = known_by(created)
    if not (fewest := wrong(best)):
        return best
    end = event - (view.delay // MICROSECOND if isinstance(view, WindowedView) else 0)
    late = {row.known_us for row in rows if row.event_us < end and event < row.known_us <= created}
    for known in sorted(late)[:_MOST_READS]:
        values = known_by(known - 1)
        if (number := wrong(values)) < fewest:
            best, fewest = values, number
    return best


def _by_key(view: StoredView, source: pa.Table) -> Mapping[Any, Sequence[SourceRow]]:
    """Return each key's rows in order of time, but for those in quarantine: without a time, or known before they happened."""
    columns = source.select(view.value_columns)
    values = columns.to_pylist() if columns.num_columns else [{}] * source.num_rows
    times = (
        source[name].cast(ARROW_TYPES["timestamp"]).cast(pa.int64()).to_pylist()
        for name in (view.source.event_time, view.source.known_at)
    )
    found: defaultdict[Any, list[SourceRow]] = defaultdict(list)
    for key, event, known, of in zip(source[view.entity.join_key].to_pylist(), *times, values, strict=True):
        if event is not None and known is not None and event <= known:
            found[key].append(SourceRow(event, known, of))
    for rows in found.values():
        rows.sort(key=lambda row: row.event_us)
    return found


def _same(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Compare values, quotients to twelve digits: another engine may have divided otherwise."""
    return np.isclose(one, other, rtol=1e-12, atol=0) if one.dtype.kind == "f" else one == other


def _micros(table: pa.Table, column: str) -> NDArray[np.int64]:
    return table[column].cast(ARROW_TYPES["timestamp"]).cast(pa.int64()).to_numpy()
