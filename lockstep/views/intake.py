"""What a run reads of its source, and what it leaves out: drifted tables are refused, rows that cannot be are quarantined."""

import logging
from datetime import datetime

import duckdb
import pyarrow as pa

from lockstep.clock import from_micros, to_micros
from lockstep.errors import BadInput, SchemaDrift
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange, quote
from lockstep.views import ticks
from lockstep.views.declare import ARROW_TYPES, EVENT_TIMESTAMP, StoredView
from lockstep.views.ticks import TickQuery

# What Iceberg itself lets a column become without rewriting it: every value stays what it was.
_WIDENS = {(pa.int32(), pa.int64()), (pa.float32(), pa.float64())}
_LARGE = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}


def ensure_table(lake: Lake, view: StoredView) -> None:
    """Make the view's table if it is absent.

    Raises:
        SchemaDrift: it is there, and has other columns or types than the view.
    """
    if lake.exists(view.table):
        _refuse_drift(f"feature table {view.table}", lake.schema(view.table), view, view.schema, only=True)
    lake.ensure_table(view.table, view.schema, partition_by=EVENT_TIMESTAMP)


def check_source(lake: Lake, query: TickQuery[StoredView], snapshot_id: int) -> None:
    """Refuse a source that is not what the view declares.

    Raises:
        SchemaDrift: a column is missing, or has a type of which some value is none of the view's.
        BadInput: the snapshot has expired, or the table is not there.
    """
    view = query.view
    columns = {name: ARROW_TYPES[dtype] for name, dtype in query.source_types.items()}
    times = dict.fromkeys((view.source.event_time, view.source.known_at), ARROW_TYPES["timestamp"])
    wanted = pa.schema({view.entity.join_key: ARROW_TYPES[view.entity.dtype], **columns, **times})
    _refuse_drift(f"source {view.source.table}", lake.schema(view.source.table, snapshot_id), view, wanted)


def _refuse_drift(name: str, table: pa.Schema, view: StoredView, wanted: pa.Schema, *, only: bool = False) -> None:
    """Name each column that differs with both types; with `only` the table may not have any other column, nor a narrower one."""
    problems: list[str] = []
    for field in wanted:
        if field.name not in table.names:
            problems.append(f"column {field.name} ({field.type}) is missing")
            continue
        there = _LARGE.get(table.field(field.name).type, table.field(field.name).type)
        if there != field.type and (only or (there, field.type) not in _WIDENS):
            problems.append(f"column {field.name} is {there} in the table and {field.type} in the view")
    if only:
        problems += [f"column {f.name} ({f.type}) is not the view's" for f in table if f.name not in wanted.names]
    if problems:
        raise SchemaDrift(
            f"view {view.name}: {name} is not what it declares: {'; '.join(problems)}",
            hint="change the declaration, or give the view a new name, which gets a table of its own",
        )


def register_source(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    query: TickQuery[StoredView],
    snapshot_id: int,
    span: ticks.TickRange,
    read_at: datetime,
) -> int:
    """Register the rows of a source snapshot that ticks may read, and return how many are quarantined instead.

    Quarantined are rows without a key or a time, rows that happened after they became known, and rows that became known after
    they were read. The last of these are read once their time has come.

    Args:
        lake: has the source.
        connection: the engine.
        query: of the view.
        snapshot_id: of the source.
        span: which ticks.
        read_at: when the ticks were computed first.
    """
    start, end = query.source_bounds(span)
    view, source = query.view, query.view.source
    columns = list(
        dict.fromkeys([view.entity.join_key, source.event_time, source.known_at, *query.source_columns.values()])
    )
    within = TimeRange(source.event_time, None if start is None else from_micros(start), from_micros(end))
    lake.register(connection, "raw", source.table, columns=columns, snapshot_id=snapshot_id, within=within)
    renamed = "".join(f", {quote(column)} AS {quote(name)}" for name, column in query.source_columns.items())
    connection.execute(
        f"CREATE TEMP VIEW read AS SELECT {quote(view.entity.join_key)} AS {ticks.KEY}, "
        f"epoch_us({quote(source.event_time)}) AS {ticks.EVENT_MICROS}, "
        f"epoch_us({quote(source.known_at)}) AS {ticks.KNOWN_MICROS}{renamed} FROM raw"
    )
    sound = (
        f"{ticks.KEY} IS NOT NULL AND {ticks.EVENT_MICROS} <= {ticks.KNOWN_MICROS} "
        f"AND {ticks.KNOWN_MICROS} <= {to_micros(read_at)}"
    )
    connection.execute(f"CREATE TEMP VIEW {ticks.SOURCE} AS SELECT * FROM read WHERE {sound}")
    (unsound,) = connection.execute(f"SELECT count(*) FROM read WHERE ({sound}) IS NOT TRUE").fetchall()[0]
    # A row without an event time lies in no range.
    quarantined = unsound + lake.count_nulls(source.table, source.event_time, snapshot_id)
    if quarantined:
        logging.getLogger(__name__).warning(
            "%s: %d rows of %s are quarantined: no key, no time, known before they happened or known in the future",
            view.name,
            quarantined,
            source.table,
        )
    return quarantined


def current_source(lake: Lake, view: StoredView) -> int:
    """Return the source's newest snapshot.

    Raises:
        BadInput: it has none, or there is no such table.
    """
    snapshot = lake.current(view.source.table)
    if snapshot is None:
        raise BadInput(f"{view.name}: its source {view.source.table} is empty", hint="ingest raw events first")
    return snapshot.id
