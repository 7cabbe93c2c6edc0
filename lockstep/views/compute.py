"""Compute the ticks of a windowed view into its Iceberg table: plan a range in the ledger, append once, commit."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa

from lockstep.clock import MICROSECOND, from_micros, to_micros
from lockstep.errors import BadInput, NotYetSupported
from lockstep.lake import Lake, Snapshot
from lockstep.lake.engine import TimeRange, connect, quote
from lockstep.lake.snapshots import COMPUTE_ID, TICK
from lockstep.materialize.ledger import ComputeRow, Ledger, Mode, State
from lockstep.settings import Settings
from lockstep.views import ticks
from lockstep.views.declare import CREATED_TIMESTAMP, EVENT_TIMESTAMP, WindowedView


@dataclass(frozen=True)
class Computed:
    """What a run left in the view's table.

    Attributes:
        tick: the view's watermark: the last tick computed.
        snapshot_id: the snapshot that the last range committed.
        rows: the rows this run appended; 0 when there was nothing to do.
    """

    view: str
    tick: datetime
    snapshot_id: int | None
    rows: int


def compute(settings: Settings, lake: Lake, ledger: Ledger, view: WindowedView, up_to: datetime) -> Computed:
    """Compute every tick up to `up_to` that is not computed yet, live: from what the sources hold now.

    Running it again is harmless: a range that was planned is finished with the snapshots and the time it was planned with.

    Raises:
        BadInput: `up_to` lies in the future.
    """
    _refuse_future(settings, up_to)
    _ensure_table(lake, view)
    last = _finish_planned(settings, lake, ledger, view)
    tick = _tick_at(view, up_to)
    start = last.tick_to if last else tick - view.every
    if tick <= start:
        return Computed(view.name, start, last.snapshot_id if last else None, 0)
    row = ledger.plan_compute(view.name, Mode.LIVE, start, tick, _sources(lake, view), settings.clock.now())
    snapshot, rows = _execute(settings, lake, ledger, view, row)
    return Computed(view.name, row.tick_to, snapshot.id, rows)


def bootstrap(
    settings: Settings, lake: Lake, ledger: Ledger, view: WindowedView, start: datetime, end: datetime
) -> Computed:
    """Compute the ticks `start < T <= end` before the view's first live one as production would have seen them.

    Ticks whose compute_lag has not passed yet are left to live.

    A tick reads the source rows that were known compute_lag after it, and its rows carry that time as created.

    Raises:
        BadInput: the range is reversed, or lies in the future.
        NotYetSupported: part of it is computed already by live ticks.
    """
    _refuse_future(settings, end)
    # A tick is known compute_lag after it; later ones are left to live.
    first, last_tick = _tick_at(view, start), _tick_at(view, min(end, settings.clock.now() - view.compute_lag))
    if last_tick <= first:
        raise BadInput(f"{view.name}: there is no tick after {start.isoformat()} up to {end.isoformat()}")
    _ensure_table(lake, view)
    done = _finish_planned(settings, lake, ledger, view)
    if done is not None and done.mode is Mode.LIVE:
        raise NotYetSupported(
            f"{view.name} has live ticks since {done.tick_from.isoformat()}; computing over or before them needs the correct mode"
        )
    earliest = ledger.computes(view.name)[0].tick_from if done else first
    if first < earliest:
        raise NotYetSupported(
            f"{view.name} is computed since {earliest.isoformat()}; ticks before that need the correct mode",
        )
    begin = done.tick_to if done else first
    if last_tick <= begin:
        return Computed(view.name, begin, done.snapshot_id if done else None, 0)
    row = ledger.plan_compute(view.name, Mode.BOOTSTRAP, begin, last_tick, _sources(lake, view), settings.clock.now())
    snapshot, rows = _execute(settings, lake, ledger, view, row)
    return Computed(view.name, row.tick_to, snapshot.id, rows)


def _refuse_future(settings: Settings, time: datetime) -> None:
    now = settings.clock.now()
    if time > now:
        raise BadInput(f"{time.isoformat()} is in the future", hint=f"it is {now.isoformat()} now")


def _ensure_table(lake: Lake, view: WindowedView) -> None:
    lake.ensure_table(view.table, view.schema, partition_by=EVENT_TIMESTAMP)


def _tick_at(view: WindowedView, time: datetime) -> datetime:
    return from_micros(ticks.tick_number(view, time) * (view.every // MICROSECOND))


def _sources(lake: Lake, view: WindowedView) -> Mapping[str, int]:
    snapshot = lake.current(view.source.table)
    if snapshot is None:
        raise BadInput(f"{view.name}: its source {view.source.table} is empty", hint="ingest raw events first")
    return {view.source.table: snapshot.id}


def _finish_planned(settings: Settings, lake: Lake, ledger: Ledger, view: WindowedView) -> ComputeRow | None:
    """Finish the range an earlier run planned and did not commit; return the view's last range."""
    rows = ledger.computes(view.name)
    if rows and rows[-1].state is not State.COMMITTED:
        _execute(settings, lake, ledger, view, rows[-1])
        rows = ledger.computes(view.name)
    return rows[-1] if rows else None


def _execute(
    settings: Settings, lake: Lake, ledger: Ledger, view: WindowedView, row: ComputeRow
) -> tuple[Snapshot, int]:
    """Append a planned range once.

    A restart finds the snapshot of an append that was not committed to the ledger; of two runs at once, the one that commits
    second finds the table moved on, fails as transient, and finds the first one's snapshot when it is tried again.
    """
    if row.state is State.COMMITTED and row.snapshot_id is not None:
        return lake.snapshot(view.table, row.snapshot_id), 0
    snapshots = lake.snapshots(view.table)
    done = next((s for s in snapshots if s.properties.get(COMPUTE_ID) == str(row.id)), None)
    if done is not None:
        ledger.commit_compute(row, done.id, int(done.properties.get("added-records", "0")), settings.clock.now())
        return done, 0
    rows = _rows(settings, lake, view, row)
    properties = {COMPUTE_ID: str(row.id), TICK: str(to_micros(row.tick_to))}
    snapshot = lake.append(view.table, rows, properties, after=snapshots[-1].sequence if snapshots else 0)
    ledger.commit_compute(row, snapshot.id, rows.num_rows, settings.clock.now())
    return snapshot, rows.num_rows


def _rows(settings: Settings, lake: Lake, view: WindowedView, row: ComputeRow) -> pa.Table:
    every = view.every // MICROSECOND
    span = ticks.TickRange(
        after=to_micros(row.tick_from) // every,
        last=to_micros(row.tick_to) // every,
        known_per_tick=row.mode is Mode.BOOTSTRAP,
    )
    with connect(settings) as connection:
        _register_source(lake, connection, view, row, span)
        _register_answers(lake, connection, view, from_micros(span.first * every))
        features = ", ".join(quote(name) for name in view.features)
        key, tick = quote(ticks.KEY), quote(ticks.TICK)
        found: pa.Table = connection.sql(
            f"SELECT {key}, {features}, {tick} * {every} AS {tick} FROM ({ticks.tick_sql(view, span, 'duckdb')}) "
            f"ORDER BY {tick}, {key}"
        ).to_arrow_table()
    event = found[ticks.TICK].cast(pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    if row.mode is Mode.BOOTSTRAP:
        lag = view.compute_lag // MICROSECOND
        created = pa.array(found[ticks.TICK].to_numpy() + lag, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    else:
        created = pa.array([to_micros(row.planned_at)] * found.num_rows, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    columns = {view.entity.join_key: found[ticks.KEY], **{name: found[name] for name in view.features}}
    return pa.table({**columns, EVENT_TIMESTAMP: event, CREATED_TIMESTAMP: created}).cast(view.schema)


def _register_source(
    lake: Lake, connection: duckdb.DuckDBPyConnection, view: WindowedView, row: ComputeRow, span: ticks.TickRange
) -> None:
    start, end = ticks.source_bounds(view, span)
    source = view.source
    summed = list(dict.fromkeys(m.column for m in view.measures if m.column))
    columns = list(dict.fromkeys([view.entity.join_key, source.event_time, source.known_at, *summed]))
    within = TimeRange(source.event_time, from_micros(start), from_micros(end))
    lake.register(
        connection, "raw", source.table, columns=columns, snapshot_id=row.sources[source.table], within=within
    )
    measured = "".join(f", {quote(c)}" for c in summed)
    connection.execute(
        f"CREATE TEMP VIEW source AS SELECT {quote(view.entity.join_key)} AS {ticks.KEY}, "
        f"epoch_us({quote(source.event_time)}) AS {ticks.EVENT_MICROS}, "
        f"epoch_us({quote(source.known_at)}) AS {ticks.KNOWN_MICROS}{measured} FROM raw"
    )


def _register_answers(lake: Lake, connection: duckdb.DuckDBPyConnection, view: WindowedView, tick: datetime) -> None:
    """Register, per key, the measures of the row that the view's table answers with at `tick`."""
    key = quote(view.entity.join_key)
    measures = [view.column(m.name, w) for m in view.measures for w in view.windows]
    columns = [view.entity.join_key, *measures, EVENT_TIMESTAMP, CREATED_TIMESTAMP]
    oldest = tick - view.ttl if view.ttl else None
    within = TimeRange(EVENT_TIMESTAMP, oldest, tick + MICROSECOND)
    lake.register(connection, "written", view.table, columns=columns, within=within)
    connection.execute(
        f"CREATE TEMP VIEW answered AS SELECT {key} AS {ticks.KEY}, {', '.join(map(quote, measures))} FROM written "
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {EVENT_TIMESTAMP} DESC, {CREATED_TIMESTAMP} DESC) = 1"
    )
