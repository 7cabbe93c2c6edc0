"""Take the rows of one key out of a table of the lake, and out of all that the table was.

One commit puts rewritten files in place of those that hold the key, drops the tags and branches whose snapshot holds it, and
expires these snapshots. A rewritten file keeps the sequence number of the one it replaces: which snapshot brought a row is known
as before. Nothing of what goes is listed in the new manifests, where a file's bounds would still tell the key.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast
from uuid import uuid4

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, _dataframe_to_data_files  # pyright: ignore[reportPrivateUsage]
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table, Transaction
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.table.update import RemoveSnapshotRefUpdate, RemoveSnapshotsUpdate
from pyiceberg.table.update.snapshot import _OverwriteFiles  # pyright: ignore[reportPrivateUsage]
from pyiceberg.types import PrimitiveType

from lockstep.errors import NotYetSupported, SchemaDrift
from lockstep.lake.commit import also, committing
from lockstep.lake.snapshots import ERASURE, OURS

_MARKS = 16


@dataclass(frozen=True)
class Wanted:
    """Whose rows: those with `value` in `column`, or where `within` is given, under that name in the JSON of `column`."""

    column: str
    value: int | str
    within: str | None = None

    def mask(self, values: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
        """Tell of each value of the column whether the row is one of them."""
        if self.within is None:
            return pc.call_function("equal", [values, pa.scalar(self.value)]).fill_null(False)
        holds = [text is not None and orjson.loads(text).get(self.within) == self.value for text in values.to_pylist()]
        return pa.array(holds, pa.bool_())

    def may_be_in(self, file: DataFile, field: int, of: PrimitiveType) -> bool:
        """Tell from a file's bounds whether it may hold such a row."""
        least, greatest = (file.lower_bounds or {}).get(field), (file.upper_bounds or {}).get(field)
        if self.within is not None or least is None or greatest is None:
            return True
        # A text's bounds are cut off after some characters, the upper one then raised.
        bounds: tuple[Any, Any] = from_bytes(of, least), from_bytes(of, greatest)
        return bounds[0] <= self.value <= bounds[1]


@dataclass(frozen=True)
class Held:
    """What there is of a key in one table.

    Attributes:
        rows: its rows in the newest snapshot.
        refs: the tags and branches whose snapshot holds it, each with which of the two it is.
        snapshots: the ids of the snapshots that hold it, oldest first.
        files: the data files, manifests and manifest lists that nobody refers to once these are gone.
    """

    rows: int
    refs: Mapping[str, str]
    snapshots: tuple[int, ...]
    files: tuple[str, ...]


class KeyInTable:
    """Finds a key in every living snapshot of a table, as the table is now, and takes it out.

    Args:
        table: just loaded.
        wanted: whose rows.

    Raises:
        SchemaDrift: the column is not of the key's type.
        NotYetSupported: rows were deleted by files of deletes, or an older schema had the column.
    """

    def __init__(self, table: Table, wanted: Wanted) -> None:
        self._table = table
        self._wanted = wanted
        self._name = table.name()[-1]
        schema = table.schema()
        if wanted.column not in schema.column_names:
            raise NotYetSupported(
                f"{self._name} had a column {wanted.column} that it has no more: its old files may hold the key",
                hint="expire the snapshots from before it was dropped, and remove their files",
            )
        self._field = schema.find_field(wanted.column)
        _require_type(self._name, wanted, schema.as_arrow().field(wanted.column).type)
        self._snapshots = sorted(table.snapshots(), key=lambda s: s.sequence_number or 0)
        self._manifests = {s.snapshot_id: s.manifests(table.io) for s in self._snapshots}
        manifests = {m.manifest_path: m for of in self._manifests.values() for m in of}
        if any(m.content is not ManifestContent.DATA for m in manifests.values()):
            raise NotYetSupported(
                f"{self._name} has files of deletes (merge-on-read)", hint="compact it first; then erase again"
            )
        self._entries = {p: m.fetch_manifest_entry(table.io, discard_deleted=False) for p, m in manifests.items()}

    def held(self) -> Held | None:
        """Return what there is of the key; None if nothing."""
        gone = [s for s in self._snapshots if any(self._is_tainted(m) for m in self._manifests[s.snapshot_id])]
        if not gone:
            return None
        ids = {s.snapshot_id for s in gone}
        kept = {path for s in self._snapshots if s.snapshot_id not in ids for path in self._reachable(s)}
        kept |= {m.manifest_path for m in self._now if not self._is_tainted(m)}
        alive = {e.data_file.file_path for m in self._now for e in self._living(m)}
        kept |= alive - self._tainted.keys()
        # A file of which a manifest says that it was removed is still there where the snapshots before expired alone.
        named = {e.data_file.file_path for s in gone for m in self._manifests[s.snapshot_id] for e in self._of(m)}
        doomed = {path for s in gone for path in self._reachable(s)} | named
        refs = {name: ref for name, ref in sorted(self._table.metadata.refs.items()) if name != MAIN_BRANCH}
        return Held(
            rows=sum(rows for path, rows in self._tainted.items() if path in alive),
            refs={name: ref.snapshot_ref_type.value for name, ref in refs.items() if ref.snapshot_id in ids},
            snapshots=tuple(s.snapshot_id for s in gone),
            files=tuple(sorted(doomed - kept)),
        )

    def erase(self, held: Held, mark: str) -> None:
        """Take out what `held` found, in one commit whose snapshot says `mark`; the files stay until they are removed.

        Raises:
            Transient: another writer committed first; nothing was changed.
        """
        with committing(self._table) as transaction:
            producer = _Erasing(
                operation=Operation.OVERWRITE,
                transaction=transaction,
                io=self._table.io,
                snapshot_properties=self._said(mark),
            )
            for manifest in self._now:
                if not self._is_tainted(manifest):
                    producer.untouched.append(manifest)
                elif rest := [e for e in self._living(manifest) if e.data_file.file_path not in self._tainted]:
                    producer.rest.append((manifest.partition_spec_id, rest))
            for manifest in self._now:
                for entry in self._living(manifest):
                    if entry.data_file.file_path in self._tainted:
                        producer.put_in_place(entry, self._without(entry.data_file, transaction))
            producer.commit()
            dropped = (RemoveSnapshotRefUpdate.model_validate({"ref-name": name}) for name in held.refs)
            also(transaction, *dropped, RemoveSnapshotsUpdate.model_validate({"snapshot-ids": held.snapshots}))

    def _said(self, mark: str) -> dict[str, str]:
        """Return what writers of ours said in a snapshot's properties and nobody has said anew: the watermark, for one."""
        said: dict[str, str] = {}
        for snapshot in self._snapshots:
            properties = snapshot.summary.additional_properties if snapshot.summary else {}
            said |= {name: value for name, value in properties.items() if name.startswith(OURS)}
        # The last ones' marks too: another erasure, whose snapshot goes with this commit, may not have looked for its own yet.
        said[ERASURE] = " ".join([mark, *said.get(ERASURE, "").split()][:_MARKS])
        return said

    @cached_property
    def _now(self) -> list[ManifestFile]:
        current = self._table.current_snapshot()
        return self._manifests[current.snapshot_id] if current else []

    @cached_property
    def _tainted(self) -> dict[str, int]:
        """The files that hold the key, each with how many rows; and those that no snapshot has any more but may have held it."""
        entries = [e for of in self._entries.values() for e in of if self._may_hold(e.data_file)]
        living = {e.data_file.file_path: e.data_file for e in entries if e.status != ManifestEntryStatus.DELETED}
        found = {path: rows for path, file in living.items() if (rows := self._count(file))}
        return {e.data_file.file_path: 0 for e in entries if e.data_file.file_path not in living} | found

    def _may_hold(self, file: DataFile) -> bool:
        return self._wanted.may_be_in(file, self._field.field_id, cast("PrimitiveType", self._field.field_type))

    def _is_tainted(self, manifest: ManifestFile) -> bool:
        return any(entry.data_file.file_path in self._tainted for entry in self._of(manifest))

    def _of(self, manifest: ManifestFile) -> list[ManifestEntry]:
        return self._entries[manifest.manifest_path]

    def _living(self, manifest: ManifestFile) -> list[ManifestEntry]:
        return [entry for entry in self._of(manifest) if entry.status != ManifestEntryStatus.DELETED]

    def _reachable(self, snapshot: Snapshot) -> Iterator[str]:
        yield snapshot.manifest_list
        for manifest in self._manifests[snapshot.snapshot_id]:
            yield manifest.manifest_path
            yield from (entry.data_file.file_path for entry in self._living(manifest))

    def _count(self, file: DataFile) -> int:
        column = self._read(file, self._table.schema().select(self._wanted.column))[self._wanted.column]
        return pc.call_function("sum", [self._wanted.mask(column)]).as_py() or 0

    def _without(self, file: DataFile, transaction: Transaction) -> list[DataFile]:
        """Write a file's other rows anew; return the files they are in."""
        rows = self._read(file, self._table.schema())
        rows = rows.filter(pc.call_function("invert", [self._wanted.mask(rows[self._wanted.column])]))
        if not rows.num_rows:
            return []
        return list(_dataframe_to_data_files(transaction.table_metadata, rows, self._table.io, uuid4()))

    def _read(self, file: DataFile, schema: Schema) -> pa.Table:
        return ArrowScan(self._table.metadata, self._table.io, schema, AlwaysTrue()).to_table([FileScanTask(file)])


def was_made(table: Table, mark: str, files: Sequence[str]) -> bool:
    """Tell whether an erasure's commit was made: its mark is there, or nothing refers to what it was to take out."""
    snapshots = table.snapshots()
    said = [s.summary.additional_properties.get(ERASURE, "") for s in snapshots if s.summary]
    if any(mark in marks.split() for marks in said):
        return True
    manifests = {m.manifest_path: m for s in snapshots for m in s.manifests(table.io)}
    entries = (e for m in manifests.values() for e in m.fetch_manifest_entry(table.io, discard_deleted=True))
    referred = {*(s.manifest_list for s in snapshots), *manifests, *(e.data_file.file_path for e in entries)}
    return referred.isdisjoint(files)


class _Erasing(_OverwriteFiles):
    """A snapshot of given manifests: nothing says what was taken out."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.untouched: list[ManifestFile] = []
        self.rest: list[tuple[int, list[ManifestEntry]]] = []
        self._replacing: list[tuple[DataFile, int | None]] = []

    def put_in_place(self, of: ManifestEntry, files: Sequence[DataFile]) -> None:
        """Put files in place of one, with its sequence number."""
        self.delete_data_file(of.data_file)
        for file in files:
            self.append_data_file(file)
            self._replacing.append((file, of.sequence_number))

    def _manifests(self) -> list[ManifestFile]:
        made = list(self.untouched)
        for spec_id, entries in self.rest:
            with self.new_manifest_writer(self.spec(spec_id)) as writer:
                for entry in entries:
                    writer.existing(entry)
            made.append(writer.to_manifest_file())
        if self._replacing:
            with self.new_manifest_writer(self._transaction.table_metadata.spec()) as writer:
                for file, sequence in self._replacing:
                    entry = ManifestEntry.from_args(
                        status=ManifestEntryStatus.ADDED,
                        snapshot_id=self._snapshot_id,
                        sequence_number=sequence,
                        data_file=file,
                    )
                    writer.add(entry)
            made.append(writer.to_manifest_file())
        return made

    def _refresh_for_retry(self) -> None:
        # What was found is what the table was.
        raise CommitFailedException("the table has changed since the key was looked for")


def _require_type(table: str, wanted: Wanted, found: pa.DataType) -> None:
    is_text = pa.types.is_string(found) or pa.types.is_large_string(found)
    fits = pa.types.is_integer(found) if isinstance(wanted.value, int) and not wanted.within else is_text
    if not fits:
        raise SchemaDrift(f"{table} has {wanted.column} as {found}, which is not the type of the key")
