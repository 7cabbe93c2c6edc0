"""Which data files a snapshot has: which it added, and which can hold a range of time. A manifest is read once."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from lockstep.clock import to_micros
from lockstep.errors import NotYetSupported
from lockstep.lake.engine import TimeRange

_ADDING = frozenset({Operation.APPEND, Operation.REPLACE})
_TIMESTAMP = struct.Struct("<q")  # https://iceberg.apache.org/spec/#binary-single-value-serialization


@dataclass(frozen=True)
class AddedFile:
    """A data file, the sequence number of the snapshot that added it, and how many rows it has."""

    path: str
    sequence: int
    rows: int


def added_files(table: Table, last: Snapshot, after: int) -> list[AddedFile]:
    """Return the data files that appends with a sequence number `after < sequence <= last`'s added, oldest first.

    A compaction (`replace`) adds no row, so its files are none of them; those it replaced are, as their append wrote them.
    Where snapshots have expired, what the next living one has of theirs stands for them: the files of appends as they were
    written, and, if a compaction was among them or is that one, what it wrote, with these rows and older ones.
    """
    up_to = last.sequence_number or 0
    within = sorted(
        (s for s in table.snapshots() if after < (s.sequence_number or 0) <= up_to),
        key=lambda s: s.sequence_number or 0,
    )
    adds = [s.summary is None or s.summary.operation is Operation.APPEND for s in within]
    if all(adds) and len(within) == up_to - after:
        within, adds = [last], [True]  # of appends alone the last one lists all files
    files: set[AddedFile] = set()
    before = after
    for snapshot, appends in zip(within, adds, strict=True):
        sequence = snapshot.sequence_number or 0
        # Each commit has the next number, so a gap is an expired snapshot.
        if appends or sequence > before + 1:
            files |= _files_since(table.io, snapshot, before)
        before = sequence
    return sorted(files, key=lambda f: (f.sequence, f.path))


def _files_since(io: FileIO, snapshot: Snapshot, after: int) -> set[AddedFile]:
    """Return the files of a snapshot that were written after one with the sequence number `after`."""
    return {
        AddedFile(entry.data_file.file_path, entry.sequence_number or 0, entry.data_file.record_count)
        for manifest in snapshot.manifests(io)
        if (manifest.sequence_number or 0) > after
        for entry in _entries(io, manifest)
        if (entry.sequence_number or 0) > after
    }


@dataclass(frozen=True)
class Change:
    """What a range of snapshots did to a table.

    Attributes:
        only_added: nothing but appends and compactions, one after another: no row was deleted, overwritten or rolled back.
        files: what the appends added; where more happened, each file that a key may have come from, gone to, or lost a row of.
    """

    only_added: bool
    files: Sequence[AddedFile]


def change(table: Table, last: Snapshot, after: int, after_id: int) -> Change | None:
    """Return what the snapshots with a sequence number `after < sequence <= last`'s did; None where some have expired.

    Each commit has the next sequence number, so a gap is an expired snapshot.

    Args:
        table: which one.
        last: the last snapshot of the range.
        after: the sequence number of the snapshot before the range, from 1.
        after_id: that snapshot's id. It is the next one's parent, unless the table was rolled back.
    """
    up_to = last.sequence_number or 0
    alive = {s.sequence_number or 0: s for s in table.snapshots()}
    within = [alive[number] for number in range(after + 1, up_to + 1) if number in alive]
    before = alive.get(after)
    if len(within) < up_to - after or (before is not None and before.snapshot_id != after_id):
        return None  # the second: another history of the table was here before
    parents = [after_id, *(s.snapshot_id for s in within)]
    follows = all(s.parent_snapshot_id == parent for s, parent in zip(within, parents, strict=False))
    if follows and all(s.summary is None or s.summary.operation in _ADDING for s in within):
        return Change(only_added=True, files=added_files(table, last, after))
    if before is None:
        return None
    states = [before, *within]
    files = _files_of(table.io, states)
    if all(manifest.content is ManifestContent.DATA for s in states for manifest in s.manifests(table.io)):
        # A file that was there all the time has neither brought nor lost a row. (With files of deletes it may have.)
        stayed = set.intersection(*({f.path for f in _files_of(table.io, [s])} for s in states))
        files = [f for f in files if f.path not in stayed]
    return Change(only_added=False, files=files)


def _files_of(io: FileIO, snapshots: Sequence[Snapshot]) -> list[AddedFile]:
    """Return the data files of all these snapshots, each once."""
    manifests = {manifest.manifest_path: manifest for s in snapshots for manifest in s.manifests(io)}
    files = {
        entry.data_file.file_path: AddedFile(
            entry.data_file.file_path, entry.sequence_number or 0, entry.data_file.record_count
        )
        for manifest in manifests.values()
        if manifest.content is ManifestContent.DATA
        for entry in _entries(io, manifest)
    }
    return sorted(files.values(), key=lambda f: (f.sequence, f.path))


@dataclass(frozen=True)
class FileLife:
    """From which state of a table to which a data file was in it.

    Attributes:
        path: the file.
        born: the sequence number of the snapshot that brought its rows.
        died: that of the first one without it; None: it is in the newest.
    """

    path: str
    born: int
    died: int | None = None


@dataclass(frozen=True)
class Past:
    """What a table was, as far as its living snapshots tell.

    Attributes:
        lives: of each data file; one that went and came back has two.
        sequences: the sequence numbers of the living snapshots, ascending.
        unknown: ranges `after < sequence < before` of expired snapshots of which nobody knows any more which files they had:
            rows went, or were compacted, between the living ones around them, or may have: the later one lists no file of some.
    """

    lives: Sequence[FileLife]
    sequences: Sequence[int]
    unknown: Sequence[tuple[int, int]]

    def knows(self, sequence: int) -> bool:
        """Tell whether it is known which files the table had in the snapshot with that sequence number; 0 is before the first."""
        return not any(after < sequence < before for after, before in self.unknown)


def past_of(table: Table) -> Past:
    """Return what a table was in each of its snapshots, rolled back ones and those of branches too.

    Of appends that follow one another only the last one's files are looked at: it lists what the others added. An erasure
    rewrites files under the sequence numbers that they had, so the rows that it leaves count as brought when they were.

    Raises:
        NotYetSupported: rows were deleted by files of deletes.
    """
    snapshots = sorted(table.snapshots(), key=lambda s: s.sequence_number or 0)
    listed: dict[str, int] = {}
    gone: set[str] = set()
    lives: list[FileLife] = []
    unknown: list[tuple[int, int]] = []
    for before, snapshot in _telling(snapshots):
        if any(manifest.content is not ManifestContent.DATA for manifest in snapshot.manifests(table.io)):
            raise NotYetSupported(
                f"{table.name()[-1]} has files of deletes (merge-on-read)", hint="compact it first, then try again"
            )
        sequence = snapshot.sequence_number or 0
        files = {file.path: file.sequence for file in _files_of(table.io, [snapshot])}
        went = listed.keys() - files.keys()
        missing = set(range(before + 1, sequence)) - set(files.values())
        if sequence > before + 1 and (went or missing or _operation(snapshot) is Operation.REPLACE):
            unknown.append((before, sequence))
        lives += [FileLife(path, listed.pop(path), sequence) for path in went]
        gone |= went
        listed |= {path: sequence if path in gone else born for path, born in files.items() if path not in listed}
    lives += [FileLife(path, born) for path, born in listed.items()]
    return Past(
        sorted(lives, key=lambda life: (life.born, life.path)), [s.sequence_number or 0 for s in snapshots], unknown
    )


def _telling(snapshots: Sequence[Snapshot]) -> Iterator[tuple[int, Snapshot]]:
    """Return the snapshots whose files have to be looked at, each with the sequence number of the living one before it."""
    before, parent = 0, None
    for snapshot, after in zip(snapshots, [*snapshots[1:], None], strict=False):
        follows = snapshot.parent_snapshot_id == parent and _operation(snapshot) is Operation.APPEND
        goes_on = (
            after is not None
            and after.parent_snapshot_id == snapshot.snapshot_id
            and _operation(after) is Operation.APPEND
        )
        if not (follows and goes_on):
            yield before, snapshot
        before, parent = snapshot.sequence_number or 0, snapshot.snapshot_id


def _operation(snapshot: Snapshot) -> Operation:
    return snapshot.summary.operation if snapshot.summary else Operation.APPEND


def holds(table: Table, current: Snapshot, snapshot_id: int) -> bool:
    """Tell whether all the data files that a snapshot added are in another one."""
    snapshot = table.snapshot_by_id(snapshot_id)
    if snapshot is None:
        return False
    added = {f.path for f in _files_of(table.io, [snapshot]) if f.sequence == snapshot.sequence_number}
    return added <= {f.path for f in _files_of(table.io, [current])}


def plain_files(table: Table, snapshot: Snapshot | None, within: TimeRange | None) -> Sequence[str] | None:
    """Return the files of a snapshot that can hold rows of a time range; None where the files alone do not say.

    They do not where rows were deleted by a file of deletes, or where a file is not of the table's one schema.

    PyIceberg's own plan reads every manifest anew and works out, for each file, what is left of the filter: of an hourly run a
    quarter (measured). Here a manifest is read once a process, and a file is chosen by its column's bounds.
    """
    if len(table.schemas()) > 1:
        return None
    if snapshot is None:
        return ()
    manifests = snapshot.manifests(table.io)
    if any(manifest.content is not ManifestContent.DATA for manifest in manifests):
        return None
    field = table.schema().find_field(within.column).field_id if within else None
    files = (entry.data_file for manifest in manifests for entry in _entries(table.io, manifest))
    return [file.file_path for file in files if within is None or _may_hold(file, field, within)]


def _may_hold(file: DataFile, field: int | None, within: TimeRange) -> bool:
    least, greatest = (_bound(bounds, field) for bounds in (file.lower_bounds, file.upper_bounds))
    too_late = within.end is not None and least is not None and least >= to_micros(within.end)
    too_early = within.start is not None and greatest is not None and greatest < to_micros(within.start)
    return not (too_late or too_early)


def _bound(bounds: dict[int, bytes] | None, field: int | None) -> int | None:
    value = (bounds or {}).get(field) if field is not None else None
    return None if value is None else _TIMESTAMP.unpack(value)[0]


def _entries(io: FileIO, manifest: ManifestFile) -> tuple[ManifestEntry, ...]:
    return _cached_entries(manifest.manifest_path, _Uncompared((io, manifest)))


class _Uncompared:
    """Carries a value past a cache's key: a manifest's path alone says what is in it, for ever."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Uncompared)


@lru_cache(maxsize=4096)
def _cached_entries(path: str, source: _Uncompared) -> tuple[ManifestEntry, ...]:
    io, manifest = source.value
    return tuple(manifest.fetch_manifest_entry(io, discard_deleted=True))
