"""Which rows an interval brings online, and which it takes away.

Where its snapshots only added rows, these are the newest a key among the files they added. Where one deleted or overwrote, each
key that a file concerned held is looked up in the table as it is afterwards: the row there may be older than what is online, or
there is none. How new a row it may take the place of, its *limit*, is the newest that the key ever had in these files.

An interval that writes everything, or one whose history has expired, brings the newest row of every key. What is online then and
not in the table any more, only the store knows: it is looked through (`leftovers`).
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from lockstep.lake import Lake
from lockstep.lake.engine import connect, newest_by_key, quote, read_parquet
from lockstep.lake.files import Change
from lockstep.materialize.ledger import MaterializeRow
from lockstep.online.withdraw import LIMIT_CREATED, LIMIT_EVENT
from lockstep.settings import Settings
from lockstep.views.declare import CREATED_TIMESTAMP, EVENT_TIMESTAMP, StoredView

_PART_ROWS = 50_000
_ORDER = (EVENT_TIMESTAMP, CREATED_TIMESTAMP)
_NOW, _NEWEST, _LIMITS = "now_rows", "newest_rows", "limits"
_LATEST, _STORED, _BATCH = "latest_rows", "stored_rows", "stored_batch"


@dataclass(frozen=True)
class Share:
    """Those keys whose hash leaves `index` when divided by `of`; a sample goes by other bits of the hash than a chunk."""

    index: int = 0
    of: int = 1
    sample: bool = False

    def condition(self, key: str) -> str:
        """Return it in SQL."""
        bits = f"(hash({quote(key)}) >> 40)" if self.sample else f"hash({quote(key)})"
        return f"{bits} % {self.of} = {self.index}"


class IntervalRows:
    """Reads the rows of a view's intervals.

    Args:
        settings: the engine's limits.
        lake: where the view's table is.
        view: which view.
    """

    def __init__(self, settings: Settings, lake: Lake, view: StoredView) -> None:
        self._settings = settings
        self._lake = lake
        self._view = view
        self._key = view.entity.join_key
        self._others = {name: name for name in view.schema.names if name != self._key}

    def size(self, row: MaterializeRow) -> int:
        """Return how many rows of the lake an interval reads."""
        return sum(file.rows for file in self._change(row).files)

    def count(self, row: MaterializeRow) -> int:
        """Return how many keys an interval writes or takes away, but for leftovers."""
        with self._open(row, Share()) as (connection, compares):
            keys = f"SELECT key FROM {_LIMITS}" if compares else f"SELECT DISTINCT {quote(self._key)} FROM {_NOW}"
            return connection.sql(f"SELECT count(*) FROM ({keys})").fetchall()[0][0]

    def newest(self, row: MaterializeRow, share: Share) -> Iterator[pa.Table]:
        """Yield, in parts, the newest row of each key of a share; it is at least as new as anything that the key had."""
        with self._open(row, share) as (connection, compares):
            found = f"SELECT r.* FROM {_NEWEST} r"
            if compares:
                found += f" JOIN {_LIMITS} l ON r.{quote(self._key)} = l.key WHERE NOT {self._is_withdrawn()}"
            yield from self._parts(connection, found, self._view.schema)

    def withdrawn(self, row: MaterializeRow, share: Share) -> Iterator[pa.Table]:
        """Yield, in parts, each key of a share whose newest row was taken away.

        Columns are those of the view's table, of the row that is the newest now (null, but for the key, if there is none), and
        the limit's two times.
        """
        with self._open(row, share) as (connection, compares):
            if compares:
                columns = ", ".join(f"r.{quote(name)}" for name in self._others)
                found = (
                    f"SELECT l.key AS {quote(self._key)}, {columns}, l.most.event AS {LIMIT_EVENT}, "
                    f"l.most.created AS {LIMIT_CREATED} FROM {_LIMITS} l "
                    f"LEFT JOIN {_NEWEST} r ON r.{quote(self._key)} = l.key "
                    f"WHERE r.{quote(self._key)} IS NULL OR {self._is_withdrawn()}"
                )
                yield from self._parts(connection, found, _with_limits(self._view.schema))

    def leftovers(self, row: MaterializeRow, stored: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield what is online though the table, as of its newest snapshot, has no such row nor a newer one.

        Args:
            row: the interval; it must be one that `looks_through` the store.
            stored: keys that are online, with the two times of their rows as limits.

        Yields:
            Tables like those of `withdrawn`.
        """
        with connect(self._settings) as connection:
            self._register(connection, _NOW, [self._key, *self._others], row.snapshot_id)
            self._register(connection, _LATEST, [self._key, *_ORDER], None)
            newest = newest_by_key(self._key, "key", {"event": _ORDER[0], "created": _ORDER[1]}, _ORDER, _LATEST)
            connection.execute(f"CREATE TEMP TABLE {_LIMITS} AS {newest}")
            columns = ", ".join(f"r.{quote(name)}" for name in self._others)
            mine = f"{quote(self._key)} IN (SELECT {quote(self._key)} FROM {_STORED})"
            rows = newest_by_key(self._key, self._key, self._others, _ORDER, _NOW, mine)
            for batch in stored:
                connection.register(_BATCH, batch)
                connection.execute(
                    f"CREATE OR REPLACE TEMP TABLE {_STORED} AS SELECT s.* FROM {_BATCH} s "
                    f"LEFT JOIN {_LIMITS} l ON s.{quote(self._key)} = l.key "
                    f"WHERE l.key IS NULL OR (l.event, l.created) < (s.{LIMIT_EVENT}, s.{LIMIT_CREATED})"
                )
                if connection.sql(f"SELECT count(*) FROM {_STORED}").fetchall()[0][0]:
                    found = (
                        f"SELECT s.{quote(self._key)}, {columns}, s.{LIMIT_EVENT}, s.{LIMIT_CREATED} "
                        f"FROM {_STORED} s LEFT JOIN ({rows}) r USING ({quote(self._key)})"
                    )
                    yield from self._parts(connection, found, _with_limits(self._view.schema))

    def readable(self, row: MaterializeRow) -> bool:
        """Tell whether the interval's last snapshot has not expired."""
        return any(snapshot.id == row.snapshot_id for snapshot in self._lake.snapshots(self._view.table))

    def looks_through(self, row: MaterializeRow) -> bool:
        """Tell whether the store may hold rows that the table does not have any more, and nobody knows of which keys."""
        return not row.writes_from or not self._change(row).known

    def _change(self, row: MaterializeRow) -> Change:
        return self._lake.change(self._view.table, row.writes_from, row.sequence_to)

    @contextmanager
    def _open(self, row: MaterializeRow, share: Share) -> Generator[tuple[duckdb.DuckDBPyConnection, bool]]:
        """Give an engine with the newest rows of a share; and whether there are limits to compare them with."""
        change, condition = self._change(row), share.condition(self._key)
        compares = bool(change.known and not change.only_added and row.writes_from)
        with connect(self._settings) as connection:
            if not change.only_added:
                self._register(connection, _NOW, [self._key, *self._others], row.snapshot_id)
            elif change.files:
                paths = read_parquet(file.path for file in change.files)
                connection.execute(f"CREATE OR REPLACE TEMP VIEW {_NOW} AS FROM {paths}")
            else:
                connection.register(_NOW, self._view.schema.empty_table())
            if compares:
                files = read_parquet(file.path for file in change.files)
                times = f"{{'event': {_ORDER[0]}, 'created': {_ORDER[1]}}}"
                connection.execute(
                    f"CREATE TEMP TABLE {_LIMITS} AS SELECT {quote(self._key)} AS key, max({times}) AS most "
                    f"FROM {files} WHERE {condition} GROUP BY ALL"
                )
                condition += f" AND {quote(self._key)} IN (SELECT key FROM {_LIMITS})"
            newest = newest_by_key(self._key, self._key, self._others, _ORDER, _NOW, condition)
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {_NEWEST} AS {newest}")
            yield connection, compares

    def _register(
        self, connection: duckdb.DuckDBPyConnection, name: str, columns: list[str], snapshot_id: int | None
    ) -> None:
        self._lake.register(connection, name, self._view.table, columns=columns, snapshot_id=snapshot_id)

    @staticmethod
    def _is_withdrawn() -> str:
        return f"(r.{_ORDER[0]}, r.{_ORDER[1]}) < (l.most.event, l.most.created)"

    @staticmethod
    def _parts(connection: duckdb.DuckDBPyConnection, query: str, schema: pa.Schema) -> Iterator[pa.Table]:
        for batch in connection.sql(query).to_arrow_reader(_PART_ROWS):
            yield pa.Table.from_batches([batch]).select(schema.names).cast(schema)


def _with_limits(schema: pa.Schema) -> pa.Schema:
    time = schema.field(EVENT_TIMESTAMP).type
    nullable = [field.with_nullable(True) for field in schema]
    return pa.schema([*nullable, pa.field(LIMIT_EVENT, time), pa.field(LIMIT_CREATED, time)])
