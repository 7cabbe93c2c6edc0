"""Which rows an interval brings online, and which it takes away.

Where its snapshots only added rows, these are the newest a key among the files they added. Where one deleted or overwrote, each
key that a file concerned held is looked up in the table as it is afterwards: the row there may be older than what is online, or
there is none. How new a row it may take the place of, its *limit*, is the newest that the key ever had in these files.

An interval that writes everything, or one whose history has expired, brings the newest row of every key. What is online then and
not in the table any more, only the store knows: it is looked through (`leftovers`). Which of the three it is, its *scope*, is
decided when the interval is planned, and kept in the ledger: history may expire between two of its chunks.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from lockstep.errors import Transient
from lockstep.lake import Lake
from lockstep.lake.engine import connect, newest_by_key, quote, read_parquet
from lockstep.lake.files import AddedFile
from lockstep.materialize.ledger_rows import MaterializeRow, Scope
from lockstep.online.withdraw import LIMIT_CREATED, LIMIT_EVENT
from lockstep.settings import Settings
from lockstep.views.declare import CREATED_TIMESTAMP, EVENT_TIMESTAMP, StoredView

_PART_ROWS = 50_000
_ORDER = (EVENT_TIMESTAMP, CREATED_TIMESTAMP)
_NOW, _NEWEST, _LIMITS = "now_rows", "newest_rows", "limits"
_LATEST, _STORED, _LEFT, _BATCH = "latest_rows", "stored_rows", "left_rows", "stored_batch"


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


class ViewRows:
    """Finds the rows of a view's intervals.

    Args:
        settings: the engine's limits.
        lake: where the view's table is.
        view: which view.
    """

    def __init__(self, settings: Settings, lake: Lake, view: StoredView) -> None:
        # A chunk needs little, and the engine keeps what it is given.
        self._settings = settings.model_copy(update={"duckdb_memory_limit": settings.materialize_memory_limit})
        self._lake = lake
        self._view = view

    def scope(self, writes_from: int, writes_after_id: int | None, sequence_to: int) -> Scope:
        """Tell what of the snapshots after one, up to a later one, has to be written.

        Args:
            writes_from: the sequence number of the snapshot before the first; 0 if everything is written.
            writes_after_id: its id.
            sequence_to: the last snapshot's sequence number.

        Raises:
            BadInput: it has expired.
        """
        if not writes_from or writes_after_id is None:
            return Scope.WHOLE
        change = self._lake.change(self._view.table, writes_from, writes_after_id, sequence_to)
        return Scope.WHOLE if change is None else Scope.ADDED if change.only_added else Scope.CHANGED

    def of(self, row: MaterializeRow) -> "IntervalRows":
        """Return the rows of an interval that is planned to be written.

        Raises:
            BadInput: its last snapshot has expired.
            Transient: snapshots that it was planned with have.
        """
        if row.scope is None or row.scope is Scope.WHOLE or row.writes_after_id is None:
            return self.whole(row)
        change = self._lake.change(self._view.table, row.writes_from, row.writes_after_id, row.sequence_to)
        if change is None or change.only_added is not (row.scope is Scope.ADDED):
            raise Transient(
                f"{self._view.table}: snapshots have expired since interval {row.id} was planned",
                hint="run the view's materialization again: it plans the same interval with what is left",
            )
        return IntervalRows(self._settings, self._lake, self._view, row.snapshot_id, row.scope, change.files)

    def whole(self, row: MaterializeRow) -> "IntervalRows":
        """Return all the rows of the snapshot that an interval ends at, whatever was planned of it."""
        return IntervalRows(self._settings, self._lake, self._view, row.snapshot_id, Scope.WHOLE, ())

    def table_uuid(self) -> str:
        """Return which table it is; see `Lake.table_uuid`."""
        return self._lake.table_uuid(self._view.table)

    def readable(self, row: MaterializeRow) -> bool:
        """Tell whether the interval's last snapshot has not expired."""
        return any(snapshot.id == row.snapshot_id for snapshot in self._lake.snapshots(self._view.table))

    def current(self, row: MaterializeRow) -> bool:
        """Tell whether the interval's last snapshot is one that the table came from: neither expired nor rolled back."""
        return any(snapshot.id == row.snapshot_id for snapshot in self._lake.lineage(self._view.table))


@dataclass(frozen=True)
class IntervalRows:
    """Reads the rows of one interval of a view.

    Attributes:
        settings: the engine's limits.
        lake: where the view's table is.
        view: which view.
        snapshot_id: the interval's last snapshot.
        scope: what is written.
        files: those that were added, or came or went; none where the whole table is written.
    """

    settings: Settings
    lake: Lake
    view: StoredView
    snapshot_id: int
    scope: Scope
    files: Sequence[AddedFile]

    @property
    def _key(self) -> str:
        return self.view.entity.join_key

    @property
    def _others(self) -> dict[str, str]:
        return {name: name for name in self.view.schema.names if name != self._key}

    def values(self) -> int:
        """Return about how many values of keys it reads: a row a key, each with all its columns."""
        key = quote(self._key)
        with connect(self.settings) as connection:
            if self.scope is Scope.WHOLE:
                self._register(connection, _NOW, [self._key], self.snapshot_id)
                source = _NOW
            elif self.files:
                source = read_parquet(file.path for file in self.files)
            else:
                return 0
            (keys,) = connection.execute(f"SELECT approx_count_distinct({key}) FROM {source}").fetchall()[0]
        return keys * len(self.view.schema)

    def count(self) -> int:
        """Return how many keys an interval writes or takes away, but for leftovers."""
        with self._open(Share()) as connection:
            keys = (
                f"SELECT key FROM {_LIMITS}"
                if self.scope is Scope.CHANGED
                else f"SELECT DISTINCT {quote(self._key)} FROM {_NOW}"
            )
            return connection.sql(f"SELECT count(*) FROM ({keys})").fetchall()[0][0]

    def newest(self, share: Share) -> Iterator[pa.Table]:
        """Yield, in parts, the newest row of each key of a share; it is at least as new as anything that the key had."""
        with self._open(share) as connection:
            found = f"SELECT r.* FROM {_NEWEST} r"
            if self.scope is Scope.CHANGED:
                found += f" JOIN {_LIMITS} l ON r.{quote(self._key)} = l.key WHERE NOT {self._is_withdrawn()}"
            yield from self._parts(connection, found, self.view.schema)

    def withdrawn(self, share: Share) -> Iterator[pa.Table]:
        """Yield, in parts, each key of a share whose newest row was taken away.

        Columns are those of the view's table, of the row that is the newest now (null, but for the key, if there is none), and
        the limit's two times.
        """
        if self.scope is not Scope.CHANGED:
            return
        columns = ", ".join(f"r.{quote(name)}" for name in self._others)
        found = (
            f"SELECT l.key AS {quote(self._key)}, {columns}, l.most.event AS {quote(LIMIT_EVENT)}, "
            f"l.most.created AS {quote(LIMIT_CREATED)} FROM {_LIMITS} l "
            f"LEFT JOIN {_NEWEST} r ON r.{quote(self._key)} = l.key "
            f"WHERE r.{quote(self._key)} IS NULL OR {self._is_withdrawn()}"
        )
        with self._open(share) as connection:
            yield from self._parts(connection, found, _with_limits(self.view.schema))

    def leftovers(self, stored: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield what is online though the interval's snapshot has no such row nor a newer one.

        It is for intervals whose scope is the whole table. A row that the table's newest snapshot has is no leftover: a later run
        brings it online, or has done so.

        Args:
            stored: keys that are online, with the two times of their rows as limits. They are drawn before the table is read:
                what another run brought online meanwhile is in its newest snapshot by then.

        Yields:
            Tables like those of `withdrawn`.
        """
        key, (event, created) = quote(self._key), _ORDER
        limits = [quote(LIMIT_EVENT), quote(LIMIT_CREATED)]
        columns = ", ".join([f"s.{key}", *(f"r.{quote(name)}" for name in self._others), *(f"s.{n}" for n in limits)])
        with connect(self.settings) as connection:
            self._collect(connection, stored)
            self._register(connection, _NOW, [self._key, *self._others], self.snapshot_id)
            self._register(connection, _LATEST, [self._key, *_ORDER], None)
            newest = newest_by_key(self._key, "key", {"event": event, "created": created}, _ORDER, _NOW)
            connection.execute(
                f"CREATE TEMP TABLE {_LEFT} AS SELECT s.* FROM {_STORED} s LEFT JOIN ({newest}) n ON s.{key} = n.key "
                f"WHERE (n.key IS NULL OR (n.event, n.created) < ({', '.join(f's.{name}' for name in limits)})) "
                f"AND NOT EXISTS (FROM {_LATEST} l WHERE l.{key} = s.{key} "
                f"AND l.{event} = s.{limits[0]} AND l.{created} = s.{limits[1]})"
            )
            rows = newest_by_key(
                self._key, self._key, self._others, _ORDER, _NOW, f"{key} IN (SELECT {key} FROM {_LEFT})"
            )
            found = f"SELECT {columns} FROM {_LEFT} s LEFT JOIN ({rows}) r USING ({key})"
            yield from self._parts(connection, found, _with_limits(self.view.schema))

    def _collect(self, connection: duckdb.DuckDBPyConnection, stored: Iterable[pa.Table]) -> None:
        names = [self._key, LIMIT_EVENT, LIMIT_CREATED]
        connection.register(_BATCH, _with_limits(self.view.schema).empty_table().select(names))
        connection.execute(f"CREATE TEMP TABLE {_STORED} AS FROM {_BATCH}")
        for batch in stored:
            connection.register(_BATCH, batch.select(names))
            connection.execute(f"INSERT INTO {_STORED} FROM {_BATCH}")

    @contextmanager
    def _open(self, share: Share) -> Generator[duckdb.DuckDBPyConnection]:
        """Give an engine with the newest rows of a share, and with their limits where they are compared."""
        condition = share.condition(self._key)
        with connect(self.settings) as connection:
            if self.scope is not Scope.ADDED:
                self._register(connection, _NOW, [self._key, *self._others], self.snapshot_id)
            elif self.files:
                paths = read_parquet(file.path for file in self.files)
                connection.execute(f"CREATE OR REPLACE TEMP VIEW {_NOW} AS FROM {paths}")
            else:
                connection.register(_NOW, self.view.schema.empty_table())
            if self.scope is Scope.CHANGED:
                files = read_parquet(file.path for file in self.files)
                times = f"{{'event': {_ORDER[0]}, 'created': {_ORDER[1]}}}"
                connection.execute(
                    f"CREATE TEMP TABLE {_LIMITS} AS SELECT {quote(self._key)} AS key, max({times}) AS most "
                    f"FROM {files} WHERE {condition} GROUP BY ALL"
                )
                condition += f" AND {quote(self._key)} IN (SELECT key FROM {_LIMITS})"
            newest = newest_by_key(self._key, self._key, self._others, _ORDER, _NOW, condition)
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {_NEWEST} AS {newest}")
            yield connection

    def _register(
        self, connection: duckdb.DuckDBPyConnection, name: str, columns: list[str], snapshot_id: int | None
    ) -> None:
        self.lake.register(connection, name, self.view.table, columns=columns, snapshot_id=snapshot_id)

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
