"""What the value of a view at a tick is, looked for among all rows of its source: slow, plain, and without an engine.

It is what docs/design.md says of ticks, once more and in other words, so that what an engine computes can be held against it: by
tests, and in a view's trial (`parity/recompute.py`). Nothing of it may come from the queries that it judges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lockstep.clock import MICROSECOND
from lockstep.errors import NotYetSupported
from lockstep.views.declare import StoredView
from lockstep.views.latest import LatestView
from lockstep.views.windowed import WindowedView


@dataclass(frozen=True)
class SourceRow:
    """A row of a view's source, of one key; times are microseconds since 1970-01-01T00:00Z."""

    event_us: int
    known_us: int
    values: Mapping[str, Any]


def value_at(
    view: StoredView, rows: Sequence[SourceRow], tick_us: int, known_by_us: int | None = None
) -> dict[str, Any] | None:
    """Return a key's features at a tick; None where the view has no value: the key is not seen yet, or dead.

    Args:
        view: whose value.
        rows: all rows of the key in the source.
        tick_us: the tick, in microseconds.
        known_by_us: what became known later is not seen; None sees everything.

    Raises:
        NotYetSupported: the view is of a kind that is not worked out here.
    """
    known = [row for row in rows if known_by_us is None or row.known_us <= known_by_us]
    if isinstance(view, WindowedView):
        return _sums(view, known, tick_us)
    if isinstance(view, LatestView):
        return _newest(view, known, tick_us)
    raise NotYetSupported(f"view {view.name} is of the kind {view.kind!r}, whose values are not worked out again")


def nothing_of(view: StoredView) -> dict[str, Any]:
    """Return what a view's table may say where a key has no value, besides having no row: empty windows, or nulls."""
    if not isinstance(view, WindowedView):
        return dict.fromkeys(view.features)
    sums = {view.column(m.name, w): 0 for m in view.measures for w in view.windows}
    return sums | {view.column(r.name, w): r.empty for r in view.ratios for w in view.windows}


def _sums(view: WindowedView, known: Sequence[SourceRow], tick_us: int) -> dict[str, Any] | None:
    end = tick_us - view.delay // MICROSECOND
    seen = [row for row in known if row.event_us < end]
    # Where rows never expire, a key still lives at the tick at which its last row has left the longest window.
    life = (max(view.windows) + (view.ttl or view.every + MICROSECOND)) // MICROSECOND
    if not any(end < row.event_us + life for row in seen):
        return None
    found: dict[str, Any] = {}
    for window in view.windows:
        inside = [row.values for row in seen if row.event_us >= end - window // MICROSECOND]
        for measure in view.measures:
            numbers = [1 if measure.column is None else values[measure.column] or 0 for values in inside]
            found[view.column(measure.name, window)] = sum(n * n if measure.squared else n for n in numbers)
        for ratio in view.ratios:
            above, below = (found[view.column(name, window)] for name in (ratio.numerator, ratio.denominator))
            found[view.column(ratio.name, window)] = float(above) / float(below) if below else ratio.empty
    return {name: found[name] for name in view.features}


def _newest(view: LatestView, known: Sequence[SourceRow], tick_us: int) -> dict[str, Any] | None:
    seen = [
        (row.event_us, row.known_us, {name: _storable(row.values[name]) for name in view.columns})
        for row in known
        if row.event_us < tick_us
    ]
    # Of two that are equal in both times the one with the greater values, null the least.
    return max(seen, key=lambda r: (*r[:2], *((v is not None, v) for v in r[2].values())), default=(0, 0, None))[2]


def _storable(value: Any) -> Any:
    """Return what the online layout holds of a value: no NaN, and times in whole seconds."""
    if isinstance(value, datetime):
        return value.replace(microsecond=0)
    return None if value != value else value  # noqa: PLR0124 - NaN is unequal to itself
