"""Point-in-time retrieval on DuckDB: one ASOF join a view, over whole microseconds.

Taken in the order in which they became available, a key's rows are a step function of time: at each moment the row with the
greatest (event, created) so far answers, and a row that arrives after a newer one never does. One window finds the steps, one
ASOF join finds the step of each entity row: sorting, never a product of the two sides (the inequality join that Feast's own
DuckDB store runs took 70 times as long on a dense table). https://duckdb.org/docs/guides/sql_features/asof_join
"""

from collections.abc import Sequence
from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa

from lockstep.clock import from_micros, require_zone, to_micros
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange, quote
from lockstep.offline.semantics import ViewRead, check_spine, plain, require_same_rows, span_us, times_us
from lockstep.views.declare import CREATED_TIMESTAMP, EVENT_TIMESTAMP

# Names that no table of the lake has, so that none is hidden by a part of the query.
_SPINE = "lockstep_spine"
_FEATURES = "lockstep_features"


def retrieve(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    spine: pa.Table,
    reads: Sequence[ViewRead],
    *,
    time_column: str = EVENT_TIMESTAMP,
    known_at: datetime | None = None,
) -> pa.Table:
    """Return the spine as it is, with the columns of each view added in the order of `reads`; see `semantics`.

    Only the needed columns are read, and only rows that can answer: from the ttl before the first time asked for to the last.

    Args:
        lake: where the tables are.
        connection: the engine; nothing is left behind in it.
        spine: the entity rows; it may have more columns than are needed.
        reads: what to read.
        time_column: the spine's column with the time each row asks for.
        known_at: None answers each row with what was known at its own time; a time answers all with what was known then.

    Raises:
        BadInput: the spine cannot be answered, `known_at` has no zone, or there is no such table or snapshot.
        SchemaDrift: a table lacks a column.
    """
    bound = None if known_at is None else to_micros(require_zone(known_at, "known_at"))
    schemas = {read.table: lake.table(read.table).schema().as_arrow() for read in reads}
    check_spine(spine, reads, schemas, time_column)
    times = times_us(spine, time_column)
    columns, fields = list(spine.columns), list(spine.schema)
    for read in reads:
        types = {name: plain(schemas[read.table].field(name).type) for name in read.columns}
        found = _answers(lake, connection, spine, times, read, bound) if spine.num_rows else None
        for number, (name, output) in enumerate(read.columns.items()):
            values = pa.chunked_array([], types[name]) if found is None else found[f"f{number}"].cast(types[name])
            columns.append(values)
            fields.append(pa.field(output, types[name]))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=spine.schema.metadata))


def _answers(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    spine: pa.Table,
    times: pa.ChunkedArray,
    read: ViewRead,
    known_us: int | None,
) -> pa.Table:
    """Return one row per row of the spine, in order: its number and the features f0, f1, ... of `read`."""
    keys = [f"k{number}" for number in range(len(read.join_keys))]
    asked = {"row": pa.array(np.arange(spine.num_rows)), "at": times}
    asked |= {key: spine[column] for key, column in zip(keys, read.join_keys.values(), strict=True)}
    # A cursor has temporary tables of its own, which go with it.
    with connection.cursor() as engine:
        engine.register(_SPINE, pa.table(asked))
        lake.register(
            engine,
            _FEATURES,
            read.table,
            columns=read.needed,
            snapshot_id=read.snapshot_id,
            within=_range(times, read.ttl_us),
        )
        found = engine.sql(_query(read, keys, known_us)).to_arrow_table()
    require_same_rows(read.table, spine.num_rows, found["row"])
    return found


def _query(read: ViewRead, keys: Sequence[str], known_us: int | None) -> str:
    """Return the SQL of one view's retrieval.

    In order of (available, event, created), rows of one event time come in order of their created time, so that a row is the
    greatest (event, created) so far when no event before it was greater. Of rows that became available at once the last counts.
    """
    named = [f"{quote(column)} AS {key}" for key, column in zip(keys, read.join_keys, strict=True)]
    named += [f"{quote(column)} AS f{number}" for number, column in enumerate(read.columns)]
    wanted = " AND ".join(f"r.{quote(column)} = s.{key}" for key, column in zip(keys, read.join_keys, strict=True))
    same = " AND ".join(f"s.{key} = f.{key}" for key in keys)
    young = f"s.at - f.event <= {read.ttl_us}" if read.ttl_us else "TRUE"
    answers = [f"CASE WHEN {young} THEN f.f{number} END AS f{number}" for number in range(len(read.columns))]
    available = "greatest(event, visible)" if known_us is None else "event"
    return f"""
        WITH known AS (
            SELECT {", ".join(named)}, epoch_us({quote(EVENT_TIMESTAMP)}) AS event,
                   epoch_us({quote(CREATED_TIMESTAMP)}) + {read.visible_lag_us} AS visible
            FROM {_FEATURES} AS r SEMI JOIN {_SPINE} AS s ON {wanted}
        ), offered AS (
            SELECT *, {available} AS available FROM known
            WHERE visible {"IS NOT NULL" if known_us is None else f"<= {known_us}"}
        ), steps AS (
            SELECT * FROM offered
            WINDOW so_far AS (
                PARTITION BY {", ".join(keys)} ORDER BY available, event, visible
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            )
            QUALIFY event >= max(event) OVER so_far AND lead(available) OVER so_far IS DISTINCT FROM available
        )
        SELECT {", ".join(["s.row", *answers])}
        FROM {_SPINE} AS s ASOF LEFT JOIN steps AS f ON {same} AND s.at >= f.available
        ORDER BY s.row
    """


def _range(times: pa.ChunkedArray, ttl_us: int) -> TimeRange:
    """Return the event times that can answer: `(first - ttl) .. last`, both included."""
    first, last = span_us(times) or (0, 0)
    return TimeRange(EVENT_TIMESTAMP, _bound(first - ttl_us) if ttl_us else None, _bound(last + 1))


def _bound(micros: int) -> datetime | None:
    """Return a bound of a scan; None where Python's calendar (years 1 to 9999) has no such time."""
    try:
        return from_micros(micros)
    except OverflowError:
        return None
