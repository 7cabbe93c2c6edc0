"""The lake: one namespace of Iceberg tables behind one catalog."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import duckdb
import pyarrow as pa
import pyiceberg.table.snapshots as iceberg
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.expressions import AlwaysTrue, IsNull
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import make_compatible_name
from pyiceberg.table import Table
from pyiceberg.table.snapshots import ancestors_of
from pyiceberg.transforms import DayTransform

from lockstep.errors import BadInput, NotYetSupported, SchemaDrift, Transient, nearest
from lockstep.lake.commit import append_rows, replace_rows
from lockstep.lake.engine import TimeRange, quote, read_parquet
from lockstep.lake.files import Change, Past, change, holds, past_of, plain_files
from lockstep.lake.snapshots import NO_SNAPSHOT, Snapshot
from lockstep.settings import Settings
from lockstep.sqlite import OpenOnce

# A table that gets a snapshot an hour must not get a manifest an hour: readers open every manifest.
TABLE_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "12",
    # Each commit writes the table's whole history anew: the last hundred of these files are enough.
    "write.metadata.delete-after-commit.enabled": "true",
    # PyIceberg would repeat a lost commit on top of the winner's: two runs of one step would both append.
    "commit.retry.num-retries": "0",
}


_OPENED = OpenOnce()
_SCANNED = "lockstep_scanned"


class Lake:
    """The tables of one project.

    Args:
        catalog: the PyIceberg catalog.
        namespace: the project's namespace; made when it is absent.
    """

    def __init__(self, catalog: Catalog, namespace: str) -> None:
        self._catalog = catalog
        self._namespace = namespace
        catalog.create_namespace_if_not_exists(namespace)

    @classmethod
    def open(cls, settings: Settings, namespace: str) -> "Lake":
        """Open the lake the settings name; the embedded one is made when it is absent."""
        settings.home.mkdir(parents=True, exist_ok=True)
        uri, warehouse = settings.catalog_uri, settings.warehouse

        def open_it() -> Lake:
            return cls(load_catalog("lake", type="sql", uri=uri, warehouse=warehouse), namespace)

        return _OPENED.get(uri, open_it, warehouse, namespace)

    @property
    def namespace(self) -> str:
        """The project whose tables these are."""
        return self._namespace

    def tables(self) -> list[str]:
        """Return the names of all tables, sorted."""
        return sorted(identifier[-1] for identifier in self._catalog.list_tables(self._namespace))

    def exists(self, name: str) -> bool:
        """Tell whether the table exists."""
        return self._catalog.table_exists((self._namespace, name))

    def table(self, name: str) -> Table:
        """Return the table as of now.

        Raises:
            BadInput: there is no such table.
        """
        try:
            return self._catalog.load_table((self._namespace, name))
        except NoSuchTableError:
            raise BadInput(f"the lake has no table {name!r}", hint=nearest(name, self.tables())) from None

    def ensure_table(self, name: str, schema: pa.Schema, partition_by: str | None = None) -> None:
        """Make the table if it is absent, partitioned by the day of `partition_by`.

        Raises:
            SchemaDrift: it exists with other columns or types.
        """
        if not self.exists(name):
            table = self._catalog.create_table_if_not_exists(
                (self._namespace, name), schema=schema, properties=TABLE_PROPERTIES
            )
            if partition_by is not None and table.spec() == PartitionSpec():
                with table.update_spec() as update:
                    update.add_field(partition_by, DayTransform())
            return
        require_schema(name, self.table(name).schema().as_arrow(), schema)

    def append(
        self, name: str, rows: pa.Table, properties: Mapping[str, str] | None = None, *, after: int | None = None
    ) -> Snapshot:
        """Append rows in one commit, an empty one if there are none, and return its snapshot.

        Args:
            name: the table.
            rows: Arrow rows with the table's columns, in any order.
            properties: what to keep in the snapshot's summary.
            after: append only if this is still the table's newest sequence number (0: it has no snapshot); None does not ask.

        Raises:
            SchemaDrift: a column is missing, unknown or of another type.
            Transient: another writer committed first.
        """
        return self.append_parts(name, [rows], properties, after=after)

    def append_parts(
        self,
        name: str,
        parts: Iterable[pa.Table],
        properties: Mapping[str, str] | None = None,
        *,
        after: int | None = None,
    ) -> Snapshot:
        """Append rows in one commit that are more than memory holds, a part at a time; otherwise like `append`.

        Each part gets files of its own, so one should hold all rows of some of the table's days.
        """
        table = self.table(name)
        _require_newest(table, name, after)
        append_rows(table, _fitting(name, table.schema().as_arrow(), parts), properties or {})
        return _committed(table, name)

    def fill(
        self,
        name: str,
        rows: pa.RecordBatchReader,
        properties: Mapping[str, str] | None = None,
        *,
        after: int | None = None,
    ) -> Snapshot:
        """Put rows in place of all that an unpartitioned table has, a batch at a time, in one commit; return its snapshot.

        Args:
            name: the table.
            rows: with the table's columns; they may be more than memory holds.
            properties: what to keep in the snapshot's summary.
            after: only if this is still the table's newest sequence number (0: it has no snapshot); None does not ask.

        Raises:
            SchemaDrift: a column is missing, unknown or of another type.
            Transient: another writer committed first.
        """
        table = self.table(name)
        _require_newest(table, name, after)
        require_schema(name, table.schema().as_arrow(), rows.schema)
        replace_rows(table, rows, properties or {})
        return _committed(table, name)

    def current(self, name: str) -> Snapshot | None:
        """Return the newest snapshot, or None for a table without one."""
        snapshot = self.table(name).current_snapshot()
        return Snapshot.of(snapshot) if snapshot else None

    def lineage(self, name: str) -> list[Snapshot]:
        """Return the newest snapshot and the living ones it came from, oldest first.

        Of `snapshots`, those are not among them that a rollback left behind. Where a parent has expired, the living snapshot
        before it is taken for an ancestor.
        """
        table = self.table(name)
        older = sorted(table.snapshots(), key=lambda s: s.sequence_number or 0)
        alive = {s.snapshot_id for s in older}
        found: list[Snapshot] = []
        at = table.current_snapshot()
        while at is not None:
            found.append(Snapshot.of(at))
            sequence, parent = at.sequence_number or 0, at.parent_snapshot_id
            while older and (older[-1].sequence_number or 0) >= sequence:
                older.pop()
            while parent in alive and older[-1].snapshot_id != parent:
                older.pop()
            at = older[-1] if older else None
        return found[::-1]

    def holds(self, name: str, snapshot_id: int) -> bool:
        """Tell whether what a living snapshot added is in the table; where its children have expired, its files tell.

        Then a compaction since hides it.
        """
        table = self.table(name)
        current = table.current_snapshot()
        ancestors = {s.snapshot_id for s in ancestors_of(current, table.metadata)}
        return snapshot_id in ancestors or (current is not None and holds(table, current, snapshot_id))

    def snapshots(self, name: str) -> list[Snapshot]:
        """Return the live snapshots in order of sequence number."""
        return sorted((Snapshot.of(s) for s in self.table(name).snapshots()), key=lambda s: s.sequence)

    def snapshot(self, name: str, snapshot_id: int) -> Snapshot:
        """Return one snapshot.

        Raises:
            BadInput: it never was, or has expired.
        """
        snapshot = self._snapshot(self.table(name), name, snapshot_id)
        if snapshot is None:
            raise BadInput(f"{name} has no snapshot", hint="write to it first")
        return Snapshot.of(snapshot)

    def tag(self, name: str, snapshot_id: int, tag: str) -> None:
        """Keep a snapshot from expiring, under a name; saying it again is harmless.

        Raises:
            Transient: another writer committed first.
        """
        table = self.table(name)
        if table.metadata.refs.get(tag) is not None:
            return
        try:
            table.manage_snapshots().create_tag(snapshot_id, tag).commit()
        except ValueError as gone:
            raise Transient(
                f"{name}: snapshot {snapshot_id} has just expired: {gone}", hint="run the step again"
            ) from gone
        except CommitFailedException as lost:
            raise Transient(f"{name}: another writer committed first: {lost}", hint="run the step again") from lost

    def past(self, name: str) -> Past:
        """Return which files the table had in which snapshot, see `lockstep.lake.files.past_of`.

        Raises:
            NotYetSupported: rows were deleted by files of deletes.
        """
        return past_of(self.table(name))

    def change(self, name: str, after: int, after_id: int, up_to: int) -> Change | None:
        """Return what the snapshots `after < sequence <= up_to` did to the table, see `lockstep.lake.files.change`.

        Raises:
            BadInput: no snapshot has the sequence number `up_to`.
        """
        table = self.table(name)
        return change(table, _by_sequence(table, name, up_to), after, after_id)

    def table_uuid(self, name: str) -> str:
        """Return what tells a table from another one of its name: it was dropped and made again.

        Raises:
            BadInput: there is no such table.
        """
        return str(self.table(name).metadata.table_uuid)

    def register(
        self,
        connection: duckdb.DuckDBPyConnection,
        view: str,
        name: str,
        *,
        columns: Sequence[str],
        snapshot_id: int | None = None,
        within: TimeRange | None = None,
    ) -> None:
        """Make a table readable in DuckDB under the name `view`, with only these columns and this time range.

        DuckDB reads the planned Parquet files itself. PyIceberg reads them instead where a file is not on a local disk or
        was written under an older schema.

        Args:
            connection: the engine.
            view: the name in the engine.
            name: the table.
            columns: what to read.
            snapshot_id: as of which snapshot; None is the newest, `NO_SNAPSHOT` none.
            within: a range of one timestamp column; files outside are not opened.

        Raises:
            BadInput: no such table or snapshot.
            SchemaDrift: the table lacks a column, or has two whose names differ in case alone.
        """
        table = self.table(name)
        snapshot = self._snapshot(table, name, snapshot_id)
        schema = _schema_of(table, snapshot if snapshot_id is not None else None)
        if missing := [c for c in columns if c not in schema.names]:
            raise SchemaDrift(f"{name} lacks {', '.join(missing)}", hint=f"it has {', '.join(schema.names)}")
        _refuse_case_twins(name, schema)
        paths = plain_files(table, snapshot, within)
        if paths is not None and all(path.startswith("file://") for path in paths):
            if not paths:
                connection.register(view, schema.empty_table().select(list(columns)))
                return
            # In a file a column's name is spelled as Avro would allow it: `a b` is `a_x20b`.
            wanted: dict[str, None] = dict.fromkeys([*columns, *([within.column] if within else [])])
            spelled = ", ".join(f"{quote(make_compatible_name(name))} AS {quote(name)}" for name in wanted)
            connection.execute(
                f"CREATE OR REPLACE TEMP VIEW {quote(view)} AS SELECT {', '.join(map(quote, columns))} "
                f"FROM (SELECT {spelled} FROM {read_parquet(paths)}) WHERE {within.sql() if within else 'TRUE'}"
            )
            return
        row_filter = within.expression() if within else AlwaysTrue()
        scan = table.scan(row_filter=row_filter, selected_fields=tuple(columns), snapshot_id=snapshot_id)
        # Into the engine's own memory, which spills: a reader can be read once, and a query may need the rows twice.
        try:
            connection.register(_SCANNED, scan.to_arrow_batch_reader())
        except ValueError as refused:
            if "equality deletes" not in str(refused):
                raise
            raise NotYetSupported(
                f"{name} has rows deleted by files of equality deletes, which PyIceberg does not read",
                hint="let a compaction of the engine that wrote them resolve them",
            ) from refused
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {quote(view)} AS SELECT * FROM {_SCANNED}")
        connection.unregister(_SCANNED)

    def schema(self, name: str, snapshot_id: int | None = None) -> pa.Schema:
        """Return a table's columns and types as they were when a snapshot was taken; None is as of now.

        Raises:
            BadInput: there is no such table or snapshot.
        """
        table = self.table(name)
        return _schema_of(table, self._snapshot(table, name, snapshot_id) if snapshot_id is not None else None)

    def count_nulls(self, name: str, column: str, snapshot_id: int) -> int:
        """Return in how many rows of a snapshot a column is null; only files that have some are opened."""
        table = self.table(name)
        if table.schema().find_field(column).required:
            return 0
        # PyIceberg builds this class with a metaclass that hides its constructor from the type checker.
        missing = IsNull(column)  # pyright: ignore[reportCallIssue]
        return table.scan(row_filter=missing, snapshot_id=snapshot_id).count()

    @staticmethod
    def _snapshot(table: Table, name: str, snapshot_id: int | None) -> iceberg.Snapshot | None:
        if snapshot_id is None:
            return table.current_snapshot()
        if snapshot_id == NO_SNAPSHOT:
            return None
        snapshot = table.snapshot_by_id(snapshot_id)
        if snapshot is None:
            raise BadInput(
                f"{name} has no snapshot {snapshot_id}", hint="it may have expired; a tag would have kept it"
            )
        return snapshot

    def drop(self, name: str) -> None:
        """Remove the table if it exists; its files stay until they are purged."""
        if self.exists(name):
            self._catalog.drop_table((self._namespace, name))


def _schema_of(table: Table, snapshot: iceberg.Snapshot | None) -> pa.Schema:
    of = table.schema() if snapshot is None or snapshot.schema_id is None else table.schemas()[snapshot.schema_id]
    return of.as_arrow()


def _by_sequence(table: Table, name: str, sequence: int) -> iceberg.Snapshot:
    found = next((s for s in table.snapshots() if s.sequence_number == sequence), None)
    if found is None:
        raise BadInput(f"{name} has no snapshot with sequence number {sequence}", hint="it may have expired")
    return found


def _fitting(name: str, schema: pa.Schema, parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    for part in parts:
        require_schema(name, schema, part.schema)
        yield part.select(schema.names).cast(schema)


def _committed(table: Table, name: str) -> Snapshot:
    """Return the snapshot that a commit just made."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        raise Transient(f"{name}: the commit left no snapshot")
    return Snapshot.of(snapshot)


def _require_newest(table: Table, name: str, after: int | None) -> None:
    current = table.current_snapshot()
    if after is not None and after != (current.sequence_number if current else 0):
        raise Transient(f"{name}: another writer committed first", hint="run the step again")


def _refuse_case_twins(name: str, schema: pa.Schema) -> None:
    """Refuse a table whose columns DuckDB cannot tell apart: it would answer one for the other."""
    spelled: dict[str, str] = {}
    for column in schema.names:
        if (other := spelled.setdefault(column.casefold(), column)) != column:
            raise SchemaDrift(
                f"{name} has the columns {other} and {column}, which differ in case alone", hint="rename one of them"
            )


def require_schema(name: str, declared: pa.Schema, given: pa.Schema) -> None:
    """Refuse rows whose columns are not the table's.

    Raises:
        SchemaDrift: a column is missing, unknown, or of another type.
    """
    missing = [f.name for f in declared if f.name not in given.names]
    unknown = [n for n in given.names if n not in declared.names]
    retyped = [
        f"{f.name} is {given.field(f.name).type}, not {plain_type(f.type)}"
        for f in declared
        if f.name in given.names and plain_type(given.field(f.name).type) != plain_type(f.type)
    ]
    problems = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
    if problems or retyped:
        raise SchemaDrift(f"{name}: the rows do not fit the table: {'; '.join(problems + retyped)}")


def plain_type(data_type: pa.DataType) -> str:
    """Return a type's text without what Arrow and Iceberg spell differently for the same thing."""
    return str(data_type).replace("large_", "").replace(" not null", "").replace("element:", "item:")
