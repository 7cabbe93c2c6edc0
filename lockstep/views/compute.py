"""Compute the ticks of a stored view into its Iceberg table: plan a range in the ledger, append once, commit."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from lockstep.clock import MICROSECOND, from_micros, to_micros
from lockstep.errors import BadInput, NotYetSupported, UseCaseError, nearest
from lockstep.lake import Lake, Snapshot
from lockstep.lake.engine import TimeRange, connect, newest_by_key, quote
from lockstep.lake.snapshots import COMPUTE_ID, TICK
from lockstep.materialize.ledger import ComputeRow, Ledger, Mode, State
from lockstep.settings import Settings
from lockstep.views import ticks
from lockstep.views.declare import ARROW_TYPES, CREATED_TIMESTAMP, EVENT_TIMESTAMP, StoredView
from lockstep.views.latest import LatestView
from lockstep.views.latest_ticks import LatestTicks
from lockstep.views.ticks import TickQuery, TickRange
from lockstep.views.windowed import WindowedView
from lockstep.views.windowed_ticks import WindowedTicks

_QUERIES: Mapping[str, Callable[[Any], TickQuery[StoredView]]] = {
    WindowedView.kind: WindowedTicks,
    LatestView.kind: LatestTicks,
}


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


def compute(settings: Settings, lake: Lake, ledger: Ledger, view: StoredView, up_to: datetime) -> Computed:
    """Compute every tick up to `up_to` that is not computed yet, live: from what the sources hold now.

    Running it again is harmless: a range that was planned is finished with the snapshots and the time it was planned with.

    Raises:
        BadInput: `up_to` lies in the future, or the source is empty.
        UseCaseError: nobody computes views of this kind, or a value, sum or square does not fit its column.
    """
    query = _query(view)
    _refuse_future(settings, up_to)
    _ensure_table(lake, view)
    last = _finish_planned(settings, lake, ledger, query)
    tick = _tick_at(view, up_to)
    start = last.tick_to if last else tick - view.every
    if tick <= start:
        return Computed(view.name, start, last.snapshot_id if last else None, 0)
    row = ledger.plan_compute(view.name, Mode.LIVE, start, tick, _sources(lake, view), settings.clock.now())
    snapshot, rows = _execute(settings, lake, ledger, query, row)
    return Computed(view.name, row.tick_to, snapshot.id, rows)


def bootstrap(
    settings: Settings, lake: Lake, ledger: Ledger, view: StoredView, start: datetime, end: datetime
) -> Computed:
    """Compute the ticks `start < T <= end` before the view's first live one as production would have seen them.

    Ticks whose compute_lag has not passed yet are left to live.

    A tick reads the source rows that were known compute_lag after it, and its rows carry that time as created.

    Raises:
        BadInput: the range is reversed, or lies in the future.
        NotYetSupported: part of it is computed already by live ticks.
        UseCaseError: nobody computes views of this kind, or a value, sum or square does not fit its column.
    """
    query = _query(view)
    _refuse_future(settings, end)
    # A tick is known compute_lag after it; later ones are left to live.
    first, last_tick = _tick_at(view, start), _tick_at(view, min(end, settings.clock.now() - view.compute_lag))
    if last_tick <= first:
        raise BadInput(f"{view.name}: there is no tick after {start.isoformat()} up to {end.isoformat()}")
    _ensure_table(lake, view)
    done = _finish_planned(settings, lake, ledger, query)
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
    snapshot, rows = _execute(settings, lake, ledger, query, row)
    return Computed(view.name, row.tick_to, snapshot.id, rows)


def _refuse_future(settings: Settings, time: datetime) -> None:
    now = settings.clock.now()
    if time > now:
        raise BadInput(f"{time.isoformat()} is in the future", hint=f"it is {now.isoformat()} now")


def _ensure_table(lake: Lake, view: StoredView) -> None:
    lake.ensure_table(view.table, view.schema, partition_by=EVENT_TIMESTAMP)


def _tick_at(view: StoredView, time: datetime) -> datetime:
    return from_micros(ticks.tick_number(view, time) * (view.every // MICROSECOND))


def _sources(lake: Lake, view: StoredView) -> Mapping[str, int]:
    snapshot = lake.current(view.source.table)
    if snapshot is None:
        raise BadInput(f"{view.name}: its source {view.source.table} is empty", hint="ingest raw events first")
    return {view.source.table: snapshot.id}


def _finish_planned(settings: Settings, lake: Lake, ledger: Ledger, query: TickQuery[StoredView]) -> ComputeRow | None:
    """Finish the range an earlier run planned and did not commit; return the view's last range."""
    rows = ledger.computes(query.view.name)
    if rows and rows[-1].state is not State.COMMITTED:
        _execute(settings, lake, ledger, query, rows[-1])
        rows = ledger.computes(query.view.name)
    return rows[-1] if rows else None


def _execute(
    settings: Settings, lake: Lake, ledger: Ledger, query: TickQuery[StoredView], row: ComputeRow
) -> tuple[Snapshot, int]:
    """Append a planned range once.

    A restart finds the snapshot of an append that was not committed to the ledger; of two runs at once, the one that commits
    second finds the table moved on, fails as transient, and finds the first one's snapshot when it is tried again.
    """
    table = query.view.table
    if row.state is State.COMMITTED and row.snapshot_id is not None:
        return lake.snapshot(table, row.snapshot_id), 0
    snapshots = lake.snapshots(table)
    done = next((s for s in snapshots if s.properties.get(COMPUTE_ID) == str(row.id)), None)
    if done is not None:
        ledger.commit_compute(row, done.id, int(done.properties.get("added-records", "0")), settings.clock.now())
        return done, 0
    rows = _rows(settings, lake, query, row)
    properties = {COMPUTE_ID: str(row.id), TICK: str(to_micros(row.tick_to))}
    snapshot = lake.append(table, rows, properties, after=snapshots[-1].sequence if snapshots else 0)
    ledger.commit_compute(row, snapshot.id, rows.num_rows, settings.clock.now())
    return snapshot, rows.num_rows


def _rows(settings: Settings, lake: Lake, query: TickQuery[StoredView], row: ComputeRow) -> pa.Table:
    view = query.view
    every = view.every // MICROSECOND
    span = TickRange(
        after=to_micros(row.tick_from) // every,
        last=to_micros(row.tick_to) // every,
        known_per_tick=row.mode is Mode.BOOTSTRAP,
    )
    with connect(settings) as connection:
        _register_source(lake, connection, query, row, span)
        _register_answers(lake, connection, query, from_micros(span.first * every))
        connection.execute(
            f"CREATE TEMP VIEW {ticks.SPAN} AS SELECT {span.first}::BIGINT AS {ticks.FIRST}, {span.last}::BIGINT AS {ticks.LAST}"
        )
        # Through a table: the relation API binds a query twice, which for one this long takes a quarter of its time.
        text = query.sql("duckdb", known_per_tick=span.known_per_tick)
        with _refusing_what_does_not_fit(view):
            connection.execute(f"CREATE TEMP TABLE found AS {text}")
        found: pa.Table = connection.sql(f"FROM found ORDER BY {ticks.TICK}, {ticks.KEY}").to_arrow_table()
    key, tick, *features = found.columns
    micros = tick.to_numpy() * every
    event = pa.array(micros, pa.int64()).cast(ARROW_TYPES["timestamp"])
    created = pa.repeat(pa.scalar(row.planned_at, ARROW_TYPES["timestamp"]), len(event))
    if span.known_per_tick:
        created = pa.array(micros + view.compute_lag // MICROSECOND, pa.int64()).cast(ARROW_TYPES["timestamp"])
    with _refusing_what_does_not_fit(view):
        return pa.table([key, *features, event, created], names=view.schema.names).cast(view.schema)


@contextmanager
def _refusing_what_does_not_fit(view: StoredView) -> Generator[None]:
    """Say whose number it was: DuckDB multiplies in 64 bits and adds in 128, which the table's columns do not have."""
    try:
        yield
    except (duckdb.OutOfRangeException, duckdb.ConversionException, pa.ArrowInvalid) as beyond:
        raise UseCaseError(
            f"view {view.name}: a value does not fit the type of its column, or a sum or square left 64 bits: {beyond}",
            hint="sum a coarser unit, or over shorter windows; or the source holds a value that cannot be",
        ) from beyond


def _query(view: StoredView) -> TickQuery[StoredView]:
    query = _QUERIES.get(view.kind)
    if query is None:
        raise UseCaseError(
            f"view {view.name} is of the kind {view.kind!r}, whose ticks nobody computes",
            hint=nearest(view.kind, _QUERIES),
        )
    return query(view)


def _register_source(
    lake: Lake, connection: duckdb.DuckDBPyConnection, query: TickQuery[StoredView], row: ComputeRow, span: TickRange
) -> None:
    start, end = query.source_bounds(span)
    key, source = query.view.entity.join_key, query.view.source
    columns = list(dict.fromkeys([key, source.event_time, source.known_at, *query.source_columns.values()]))
    within = TimeRange(source.event_time, None if start is None else from_micros(start), from_micros(end))
    lake.register(
        connection, "raw", source.table, columns=columns, snapshot_id=row.sources[source.table], within=within
    )
    connection.execute(
        f"CREATE TEMP VIEW {ticks.SOURCE} AS SELECT {quote(key)} AS {ticks.KEY}, "
        f"epoch_us({quote(source.event_time)}) AS {ticks.EVENT_MICROS}, "
        f"epoch_us({quote(source.known_at)}) AS {ticks.KNOWN_MICROS}{_renamed(query.source_columns)} FROM raw"
    )


def _register_answers(
    lake: Lake, connection: duckdb.DuckDBPyConnection, query: TickQuery[StoredView], tick: datetime
) -> None:
    """Register, per key, what is compared of the row that the view's table answers with at `tick`."""
    view, oldest = query.view, query.answers_for
    columns = [view.entity.join_key, *query.answer_columns.values(), EVENT_TIMESTAMP, CREATED_TIMESTAMP]
    within = TimeRange(EVENT_TIMESTAMP, None if oldest is None else tick - oldest, tick + MICROSECOND)
    lake.register(connection, "written", view.table, columns=columns, within=within)
    order = (EVENT_TIMESTAMP, CREATED_TIMESTAMP)
    newest = newest_by_key(view.entity.join_key, ticks.KEY, query.answer_columns, order, "written")
    connection.execute(f"CREATE TEMP VIEW {ticks.ANSWERED} AS {newest}")


def _renamed(columns: Mapping[str, str]) -> str:
    return "".join(f", {quote(column)} AS {quote(name)}" for name, column in columns.items())
