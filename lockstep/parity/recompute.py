"""Hold what a view's table answers against the raw source: each value worked out again, key by key, without an engine.

Everything else that parity compares begins at the view's table; this is what says whether that is right. Both tables are read as
they are, the value comes from `views/naive.py`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from lockstep.clock import MICROSECOND, from_micros, to_micros
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import ComputeRow, Mode
from lockstep.offline.semantics import FeatureRow, as_known
from lockstep.views.declare import ARROW_TYPES, CREATED_TIMESTAMP, EVENT_TIMESTAMP, StoredView
from lockstep.views.latest import LatestView
from lockstep.views.naive import SourceRow, nothing_of, value_at
from lockstep.views.windowed import WindowedView

_EXAMPLES = 3
_AT_ANY_TIME = 2**62


@dataclass(frozen=True)
class Recomputed:
    """What working values out again gave.

    Attributes:
        keys: of how many keys.
        ticks: at how many ticks: computed as history, and live.
        values: values compared.
        alive: how often a key had a value at all.
        differing: per feature and mode, how often the table says something else.
        late: what was not computed that should have been, in a sentence each.
        examples: the first few differences, told.
    """

    keys: int
    ticks: Mapping[str, int]
    values: int
    alive: int
    differing: Mapping[str, int]
    late: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


def recompute(
    lake: Lake, ledger: Ledger, view: StoredView, keys: Iterable[Any], asked: Sequence[datetime], up_to: datetime
) -> Recomputed:
    """Work a view's values out again and hold its table against them.

    Args:
        lake: has the source and the table.
        ledger: says how and when ticks were computed.
        view: whose values.
        keys: of which keys.
        asked: at which ticks.
        up_to: the last tick that should have been computed.

    Raises:
        NotYetSupported: the view is of a kind that is not worked out again.
    """
    wanted = set(keys)
    stored = _stored_rows(lake, view, wanted)
    sources: dict[int, Mapping[Any, list[SourceRow]]] = {}
    tiles = [row for row in ledger.computes(view.name) if row.mode is not Mode.CORRECT]
    watermark = max((s.tick for s in lake.lineage(view.table) if s.tick is not None), default=None)
    late: list[str] = []
    if watermark is None or watermark < to_micros(up_to):
        reached = (
            "not computed at all" if watermark is None else f"computed up to {from_micros(watermark).isoformat()}"
        )
        late.append(f"{view.name} is {reached}, and the last run was for {up_to.isoformat()}")
    differing: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    examples: list[str] = []
    values = alive = 0
    for tick in asked:
        tile = next((t for t in tiles if t.tick_from < tick <= t.tick_to), None)
        if tile is None:
            late.append(f"{view.name} has no row in the ledger for the tick {tick.isoformat()}")
            continue
        modes[tile.mode.value] += 1
        now, snapshot = to_micros(tick), tile.sources[view.source.table]
        if snapshot not in sources:
            sources[snapshot] = _source_rows(lake, view, wanted, snapshot)
        for key in sorted(wanted):
            expected = value_at(view, _readable(sources[snapshot][key], tile), now, _known_by(view, tile, now))
            found = as_known(stored[key], (key,), now, _AT_ANY_TIME, view.ttl // MICROSECOND, 0)
            values += len(view.features)
            alive += expected is not None
            for feature, right, there in _differences(view, expected, found):
                differing[f"{view.name}:{feature} ({tile.mode.value})"] += 1
                examples.append(
                    f"{feature} of {key} at {tick:%Y-%m-%dT%H:%M:%SZ}: the table says {there}, its source {right}"
                )
    told = tuple(examples[:_EXAMPLES])
    return Recomputed(len(wanted), dict(modes), values, alive, dict(differing), tuple(late), told)


def joined(parts: Sequence[Recomputed]) -> Recomputed:
    """Return what working out several views gave, as one."""
    modes: Counter[str] = Counter()
    for part in parts:
        modes.update(part.ticks)
    return Recomputed(
        keys=sum(part.keys for part in parts),
        ticks=dict(modes),
        values=sum(part.values for part in parts),
        alive=sum(part.alive for part in parts),
        differing={what: times for part in parts for what, times in part.differing.items()},
        late=tuple(told for part in parts for told in part.late),
        examples=tuple(told for part in parts for told in part.examples)[:_EXAMPLES],
    )


def ticks_between(view: StoredView, after: datetime, last: datetime, most: int) -> list[datetime]:
    """Return ticks of `after < T <= last`: all, or as many as are wanted, evenly spread and the last one among them."""
    every = view.every // MICROSECOND
    numbers = range(to_micros(after) // every + 1, to_micros(last) // every + 1)
    if len(numbers) > most:
        numbers = sorted({numbers[-1 - n * len(numbers) // most] for n in range(most)})
    return [from_micros(number * every) for number in numbers]


def keys_that_change(lake: Lake, view: StoredView, after: datetime, last: datetime, most: int) -> list[Any]:
    """Return keys of which a source row is seen first by one of the ticks `after < T <= last`, those of the newest rows first."""
    delay = view.delay if isinstance(view, WindowedView) else 0 * MICROSECOND
    key, source = view.entity.join_key, view.source
    raw = _scanned(lake, source.table, [key, source.event_time, source.known_at])
    times = zip(_micros(raw[source.event_time]), _micros(raw[source.known_at]), raw[key].to_pylist(), strict=True)
    complete = ((event, known, of) for event, known, of in times if None not in (event, known, of))
    start, end = to_micros(after - delay), to_micros(last - delay)
    # It happened just now, or became known just now.
    seen = {(e, of) for e, known, of in complete if e < end and (e >= start or known >= to_micros(after))}
    newest = sorted({of: event for event, of in sorted(seen)}.items(), key=lambda found: -found[1])
    return [of for of, _ in newest[:most]]


def _known_by(view: StoredView, tile: ComputeRow, tick_us: int) -> int | None:
    return tick_us + view.compute_lag // MICROSECOND if tile.mode is Mode.BOOTSTRAP else None


def _readable(rows: Sequence[SourceRow], tile: ComputeRow) -> list[SourceRow]:
    """Return the rows that are not quarantined: none happened after it became known, or became known after it was read."""
    return [row for row in rows if row.event_us <= row.known_us <= to_micros(tile.planned_at)]


def _differences(
    view: StoredView, expected: Mapping[str, Any] | None, found: FeatureRow | None
) -> list[tuple[str, Any, Any]]:
    """Return each feature that the table has wrong, with what is right and what is there."""
    if expected is None and (found is None or found.values == nothing_of(view)):
        return []
    right, there = expected or {}, found.values if found else {}
    return [
        (feature, right.get(feature, "nothing"), there.get(feature, "nothing"))
        for feature in view.features
        if right.get(feature, "nothing") != there.get(feature, "nothing")
    ]


def _source_rows(lake: Lake, view: StoredView, wanted: set[Any], snapshot: int) -> Mapping[Any, list[SourceRow]]:
    source, key = view.source, view.entity.join_key
    columns = view.value_columns
    raw = _scanned(lake, source.table, view.source_columns, snapshot)
    values = {name: raw[name] for name in columns}
    if isinstance(view, LatestView):
        values = {name: raw[name].cast(ARROW_TYPES[view.columns[name]]) for name in columns}
    found: defaultdict[Any, list[SourceRow]] = defaultdict(list)
    told = pa.table(values).to_pylist() if values else [{}] * raw.num_rows
    times = zip(_micros(raw[source.event_time]), _micros(raw[source.known_at]), strict=True)
    for of, (event, known), row in zip(raw[key].to_pylist(), times, told, strict=True):
        if of in wanted and event is not None and known is not None:
            found[of].append(SourceRow(event, known, row))
    return found


def _stored_rows(lake: Lake, view: StoredView, wanted: set[Any]) -> Mapping[Any, list[FeatureRow]]:
    key = view.entity.join_key
    table = _scanned(lake, view.table, view.schema.names)
    told = table.select(list(view.features)).to_pylist()
    found: defaultdict[Any, list[FeatureRow]] = defaultdict(list)
    times = zip(_micros(table[EVENT_TIMESTAMP]), _micros(table[CREATED_TIMESTAMP]), strict=True)
    for of, (event, created), row in zip(table[key].to_pylist(), times, told, strict=True):
        if of in wanted:
            found[of].append(FeatureRow((of,), event, created, row))
    return found


def _scanned(lake: Lake, table: str, columns: Sequence[str], snapshot: int | None = None) -> pa.Table:
    return lake.table(table).scan(selected_fields=tuple(dict.fromkeys(columns)), snapshot_id=snapshot).to_arrow()


def _micros(times: pa.ChunkedArray) -> list[Any]:
    return times.cast(ARROW_TYPES["timestamp"]).cast(pa.int64()).to_pylist()
