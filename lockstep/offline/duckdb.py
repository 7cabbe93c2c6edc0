"""Point-in-time retrieval on DuckDB: two ASOF joins a view, over whole microseconds.

Taken in the order in which they became available, a key's rows are a step function of time: at each moment the row with the
greatest (event, created) so far answers, and a row that arrives after a newer one never does. Most rows of a feature table
become available equally long after their event, so that they arrive in order of it: each of these *prompt* rows is a step, and
an ASOF join finds the last one. What is left, the *late* rows, are few; one window finds the steps among them, a second ASOF
join the last of those, and the greater of the two rows answers. That is sorting, never a product of the two sides (the
inequality join that Feast's own DuckDB store runs takes dozens of times as long on a dense table: `python -m
benchmarks.point_in_time`). Both sorts spill to disk. https://duckdb.org/docs/guides/sql_features/asof_join
"""

import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import pyarrow as pa

from lockstep.clock import from_micros, require_zone, to_micros
from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange, connect, quote, spill_folder
from lockstep.offline.semantics import (
    ViewRead,
    check_spine,
    contradiction,
    plain,
    require_same_rows,
    span_us,
    times_us,
)
from lockstep.settings import Settings
from lockstep.views.declare import CREATED_TIMESTAMP, EVENT_TIMESTAMP

# Names that no table of the lake has, so that none is hidden by a part of the query.
_SPINE = "lockstep_spine"
_FEATURES = "lockstep_features"
_KNOWN = "lockstep_known"

_BATCH_ROWS = 100_000
# By so many rows of a table it is judged how long after its event a row usually becomes available.
_JUDGED_ROWS = 100_000


@dataclass(frozen=True)
class DuckDBEngine:
    """Answers from files that DuckDB reads itself, within `duckdb_memory_limit`, a part of the spine at a time."""

    settings: Settings
    lake: Lake

    def retrieve(
        self, spine: pa.Table, reads: Sequence[ViewRead], *, time_column: str, known_at: datetime | None
    ) -> Iterator[pa.Table]:
        """Yield the spine with its features; see `Engine`.

        Each part reads the tables anew, in its own range of time: a spine of several parts is best in order of time.
        """
        part_rows = self.settings.retrieval_rows
        with connect(self.settings) as connection:
            for start in range(0, max(spine.num_rows, 1), part_rows):
                part = spine.slice(start, part_rows)
                yield retrieve(self.lake, connection, part, reads, time_column=time_column, known_at=known_at)

    def rows(
        self,
        table: str,
        columns: Sequence[str],
        within: TimeRange,
        snapshot_id: int | None,
        *,
        newest_of: Sequence[str] | None = None,
        newest_by: Sequence[str] = (),
    ) -> pa.Table:
        """Return rows of a table; see `Engine`."""
        newest = ""
        if newest_of is not None:
            present = " AND ".join(f"{quote(column)} IS NOT NULL" for column in (*newest_of, *newest_by))
            each = f"PARTITION BY {', '.join(map(quote, newest_of))} " if newest_of else ""
            order = ", ".join(f"{quote(column)} DESC" for column in newest_by)
            newest = f"WHERE {present} QUALIFY row_number() OVER ({each}ORDER BY {order}) = 1"
        kinds = self.lake.schema(table, snapshot_id)
        schema = pa.schema([kinds.field(name).with_type(plain(kinds.field(name).type)) for name in columns])
        with connect(self.settings) as connection:
            self.lake.register(connection, _FEATURES, table, columns=columns, snapshot_id=snapshot_id, within=within)
            found = connection.sql(f"SELECT {', '.join(map(quote, columns))} FROM {_FEATURES} {newest}")
            return found.to_arrow_table().cast(schema)

    def query(self, sql: str, snapshot_of: Callable[[str], int]) -> pa.Table:
        """Return what SQL in DuckDB's dialect gives, from a file that only the result holds open; see `Engine`."""
        with connect(self.settings) as connection, _staging(self.settings) as path:
            try:
                for table in self._tables(connection, sql):
                    snapshot_id = snapshot_of(table)
                    columns = self.lake.schema(table, snapshot_id).names
                    self.lake.register(connection, table, table, columns=columns, snapshot_id=snapshot_id)
                found = connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
                # Arrow's own format: Parquet would turn DuckDB's wider integers into floats.
                with pa.ipc.new_file(path, found.schema) as file:
                    for batch in found:
                        file.write_batch(batch)
            except duckdb.Error as wrong:
                raise BadInput(f"the SQL does not run: {wrong}") from wrong
            return pa.ipc.open_file(pa.memory_map(str(path))).read_all()

    def _tables(self, connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
        """Return the tables that a query reads, as it names them.

        What it is was decided by DuckDB's own parser, which writes down queries alone: a statement that changes the engine
        (SET, CREATE, COPY, ATTACH) would change it for everybody in this process.
        """
        parsed = orjson.loads(connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0][0])
        if parsed["error"] or len(parsed["statements"]) != 1:
            said = parsed.get("error_message", "it is more than one statement")
            raise BadInput(f"the SQL is not one query: {said}", hint="write one SELECT over the lake's tables")
        read, made = _names(parsed)
        return sorted(name for name in read if name not in made or self.lake.exists(name))


def _names(tree: Any) -> tuple[set[str], set[str]]:
    """Return the names of the tables that a parsed query reads, and of those that it makes itself (`WITH`)."""
    read: set[str] = set()
    made: set[str] = set()
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            if node.get("type") == "BASE_TABLE":
                read.add(node["table_name"])
            made |= {entry["key"] for entry in (node.get("cte_map") or {}).get("map", [])}
        nodes += node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return read, made


@contextmanager
def _staging(settings: Settings) -> Generator[Path]:
    """Give a file to write; what still has it open when the block ends keeps its contents, and nobody else."""
    with tempfile.NamedTemporaryFile(dir=spill_folder(settings), suffix=".arrow") as file:
        yield Path(file.name)


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
        BadInput: the spine cannot be answered, `known_at` has no zone, there is no such table or snapshot, or rows contradict
            each other.
        SchemaDrift: a table lacks a column.
    """
    known_us = None if known_at is None else to_micros(require_zone(known_at, "known_at"))
    schemas = {read.table: lake.schema(read.table, read.snapshot_id) for read in reads}
    check_spine(spine, reads, schemas, time_column)
    span = span_us(spine, time_column)
    columns, fields = list(spine.columns), list(spine.schema)
    for read in reads:
        types = {name: plain(schemas[read.table].field(name).type) for name in read.columns}
        found = _answers(lake, connection, spine, time_column, span, read, known_us) if span else None
        for number, (name, output) in enumerate(read.columns.items()):
            values = pa.chunked_array([], types[name]) if found is None else found[f"f{number}"].cast(types[name])
            columns.append(values)
            fields.append(pa.field(output, types[name]))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=spine.schema.metadata))


def _answers(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    spine: pa.Table,
    time_column: str,
    span: tuple[int, int],
    read: ViewRead,
    known_us: int | None,
) -> pa.Table:
    """Return one row per row of the spine, in order: its number and the features f0, f1, ... of `read`."""
    query = _Query(read, known_us)
    asked = {"row": pa.array(np.arange(spine.num_rows)), "at": times_us(spine, time_column)}
    asked |= {key: spine[column] for key, column in zip(query.keys, read.join_keys.values(), strict=True)}
    # A cursor has temporary tables of its own, which go with it.
    with connection.cursor() as engine:
        engine.register(_SPINE, pa.table(asked))
        lake.register(
            engine,
            _FEATURES,
            read.table,
            columns=read.needed,
            snapshot_id=read.snapshot_id,
            within=_range(span, read.ttl_us),
        )
        engine.execute(f"CREATE TEMP TABLE {_KNOWN} AS {query.known()}")
        _refuse_contradictions(engine, query)
        usual = next((lag for (lag,) in engine.sql(query.usual_lag()).fetchall()), 0)
        found = engine.sql(query.answers(usual)).to_arrow_table()
    require_same_rows(read.table, spine.num_rows, found["row"])
    return found


def _refuse_contradictions(engine: duckdb.DuckDBPyConnection, query: "_Query") -> None:
    """Refuse rows of one key, event and created time that say different things; the same row twice is none."""
    if not engine.sql(query.repeated()).fetchall()[0][0]:
        return
    for *values, event, created in engine.sql(query.contradictory()).fetchall():
        key = dict(zip(query.read.join_keys, values, strict=True))
        raise contradiction(query.read, key, from_micros(event), from_micros(created))


@dataclass(frozen=True)
class _Query:
    """The SQL of one view's retrieval, over the spine and the feature table under their names.

    Times are microseconds. A row's `visible` time is its created time and the visible lag, its `lag` from the event to that.
    It is `available` from the later of event and visible on; where `known_us` is given, from its event on, if it is visible by
    then.
    """

    read: ViewRead
    known_us: int | None

    @property
    def keys(self) -> list[str]:
        """The names of the key columns: k0, k1, ..."""
        return [f"k{number}" for number in range(len(self.read.join_keys))]

    @property
    def features(self) -> list[str]:
        """The names of the feature columns: f0, f1, ..."""
        return [f"f{number}" for number in range(len(self.read.columns))]

    @property
    def _rows(self) -> str:
        """The rows that can be known, with their times, of every key."""
        named = [f"{quote(column)} AS {key}" for key, column in zip(self.keys, self.read.join_keys, strict=True)]
        named += [f"{quote(column)} AS {name}" for name, column in zip(self.features, self.read.columns, strict=True)]
        known = "visible IS NOT NULL" if self.known_us is None else f"visible <= {self.known_us}"
        return f"""
            SELECT *, visible - event AS lag FROM (
                SELECT {", ".join(named)}, epoch_us({quote(EVENT_TIMESTAMP)}) AS event,
                       epoch_us({quote(CREATED_TIMESTAMP)}) + {self.read.visible_lag_us} AS visible
                FROM {_FEATURES}
            ) WHERE event IS NOT NULL AND {known}
        """

    def known(self) -> str:
        """Return, of these rows, those of the keys that are asked for: a table that each of the other queries reads."""
        keys = ", ".join(self.keys)
        return f"SELECT * FROM ({self._rows}) SEMI JOIN (SELECT DISTINCT {keys} FROM {_SPINE}) USING ({keys})"

    def repeated(self) -> str:
        """Tell whether rows have their key, event and visible time in common; seldom also when they do not."""
        return f"SELECT count(*) > count(DISTINCT hash({', '.join([*self.keys, 'event', 'visible'])})) FROM {_KNOWN}"

    def contradictory(self) -> str:
        """Return the key, event and created time of rows that have these in common and differ."""
        keys = ", ".join(self.keys)
        columns = ", ".join([keys, "event", "visible", *self.features])
        return f"""
            SELECT {keys}, event, visible - {self.read.visible_lag_us} FROM (SELECT DISTINCT {columns} FROM {_KNOWN})
            GROUP BY {keys}, event, visible HAVING count(*) > 1 LIMIT 1
        """

    @property
    def _grid(self) -> int:
        """What prompt rows' event times are multiples of; 1 where rows are compared by event time alone."""
        return self.read.every_us if self.known_us is None else 1

    def usual_lag(self) -> str:
        """Return the least of the usual lags: the usual ones are in `[usual, usual + grid)`."""
        return f"""
            SELECT lag - (lag % {self._grid} + {self._grid}) % {self._grid} AS usual
            FROM (SELECT lag FROM {_KNOWN} LIMIT {_JUDGED_ROWS}) GROUP BY usual ORDER BY count(*) DESC, usual LIMIT 1
        """

    def answers(self, usual: int) -> str:
        """Return the answers to the spine, in its order.

        Two prompt rows of a key lie at least a grid apart, or have one event time, and their lags differ by less than a grid: so
        the one with the greater (event, visible) becomes available later. That two of one event time are not available at
        once takes lags of 0 and more; on a grid of 1 they have one lag, and are one row. Whatever `usual` is, the answers are the
        same.

        In order of (available, event, visible) a late row is the greatest so far when no event before it was greater, and of
        those that became available at once the last counts.
        """
        grid, ttl = self._grid, self.read.ttl_us
        keys, features = ", ".join(self.keys), self.features
        same = {side: " AND ".join(f"s.{key} = {side}.{key}" for key in self.keys) for side in ("p", "l")}
        on_grid = f"event % {grid} = 0 AND lag >= 0" if grid > 1 else "TRUE"
        available = "greatest(event, visible)" if self.known_us is None else "event"
        young = {side: f"s.at - {side}.event <= {ttl}" if ttl else "TRUE" for side in ("p", "l")}
        answers = [
            f"CASE WHEN late THEN CASE WHEN {young['l']} THEN l.{f} END WHEN {young['p']} THEN p.{f} END AS {f}"
            for f in features
        ]
        return f"""
            WITH available AS (
                SELECT *, {available} AS available,
                       lag >= {usual} AND lag < {usual + grid} AND {on_grid} AS prompt
                FROM {_KNOWN}
            ), prompt AS (
                SELECT * FROM available WHERE prompt
            ), late AS (
                SELECT * FROM available WHERE NOT prompt
                WINDOW so_far AS (
                    PARTITION BY {keys} ORDER BY available, event, visible
                    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
                )
                QUALIFY event >= max(event) OVER so_far AND lead(available) OVER so_far IS DISTINCT FROM available
            )
            SELECT s.row, l.event IS NOT NULL AND (p.event IS NULL OR (l.event, l.visible) > (p.event, p.visible)) AS late,
                   {", ".join(answers)}
            FROM {_SPINE} AS s
            ASOF LEFT JOIN prompt AS p ON {same["p"]} AND s.at >= p.available
            ASOF LEFT JOIN late AS l ON {same["l"]} AND s.at >= l.available
            ORDER BY s.row
        """


def _range(span: tuple[int, int], ttl_us: int) -> TimeRange:
    """Return the event times that can answer: `(first - ttl) .. last`, both included."""
    first, last = span
    return TimeRange(EVENT_TIMESTAMP, _bound(first - ttl_us) if ttl_us else None, _bound(last + 1))


def _bound(micros: int) -> datetime | None:
    """Return a bound of a scan; None where Python's calendar (years 1 to 9999) has no such time."""
    try:
        return from_micros(micros)
    except OverflowError:
        return None
