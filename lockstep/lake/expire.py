"""Expire snapshots of a table, and remove the files that nothing of it refers to any more.

PyIceberg only forgets the snapshots: the manifest lists, manifests, data and statistics files that were theirs alone would stay
for ever. https://iceberg.apache.org/docs/latest/maintenance/#expire-snapshots
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import RemoveSnapshotsUpdate, ValidatableTableRequirement

from lockstep.errors import Terminal, Transient
from lockstep.lake.commit import also, committing


@dataclass(frozen=True)
class Expired:
    """What went.

    Attributes:
        snapshots: how many.
        files: how many files that were theirs alone were removed.
        left: files of theirs that could not be removed, each with why; nothing refers to them any more.
    """

    snapshots: int
    files: int
    left: Mapping[str, str]


class _SameRefs(ValidatableTableRequirement):
    """The branches and tags are those that were seen: PyIceberg would drop a newer one together with its snapshot.

    A SQL catalog asks it on the metadata that it is about to change. A REST catalog knows no such requirement.
    """

    type: str = "lockstep-same-refs"
    refs: dict[str, int]

    def validate(self, base_metadata: TableMetadata | None) -> None:
        if base_metadata is None or _refs(base_metadata) != self.refs:
            raise CommitFailedException("a branch or tag was made or moved")


def expire(table: Table, ids: Collection[int]) -> Expired:
    """Expire these snapshots in one commit, then remove what only they referred to.

    A file that cannot be removed is passed over and named; one that is gone already is none. A run that ends in between leaves
    files that nothing refers to: an engine's removal of orphan files finds them.

    Args:
        table: just loaded.
        ids: of its snapshots, none that a branch or tag names.

    Raises:
        Terminal: a branch or tag names one of them; nothing was changed.
        Transient: a branch or tag was made or moved, another writer committed in the same moment, or another run expires the
            same snapshots; nothing was changed.
    """
    if not ids:
        return Expired(0, 0, {})
    name, refs = table.name()[-1], _refs(table.metadata)
    if kept := sorted(ref for ref, snapshot in refs.items() if snapshot in ids):
        raise Terminal(f"{name}: snapshot {refs[kept[0]]} is kept by {kept[0]!r} and was not expired")
    try:
        theirs = _files(table, [s for s in table.snapshots() if s.snapshot_id in ids])
        with committing(table) as transaction:
            also(
                transaction,
                RemoveSnapshotsUpdate.model_validate({"snapshot-ids": sorted(ids)}),
                requirements=[_SameRefs(refs=refs)],
            )
    except (FileNotFoundError, ValueError) as gone:
        raise Transient(f"{name}: another run expires the same snapshots: {gone}", hint="run the step again") from gone
    table.refresh()
    left: dict[str, str] = {}
    unused = theirs - _files(table, table.snapshots())
    for path in sorted(unused):
        try:
            table.io.delete(path)
        except FileNotFoundError:
            continue
        except OSError as failure:
            left[path] = str(failure)
    return Expired(len(ids), len(unused) - len(left), left)


def _refs(metadata: TableMetadata) -> dict[str, int]:
    return {name: ref.snapshot_id for name, ref in metadata.refs.items()}


def _files(table: Table, snapshots: Iterable[Snapshot]) -> set[str]:
    """Return every file that these snapshots need: manifest lists, manifests, data alive in them, and statistics."""
    found: set[str] = set()
    ids: set[int] = set()
    for snapshot in snapshots:
        ids.add(snapshot.snapshot_id)
        found.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in found:
                found.add(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
                found |= {entry.data_file.file_path for entry in entries}
    return found | {s.statistics_path for s in table.metadata.statistics if s.snapshot_id in ids}
