"""Expire snapshots of a table, and remove the files that nothing of it refers to any more.

PyIceberg only forgets the snapshots: the manifest lists, manifests and data files that were theirs alone would stay for ever.
https://iceberg.apache.org/docs/latest/maintenance/#expire-snapshots
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import RemoveSnapshotsUpdate

from lockstep.errors import Terminal
from lockstep.lake.commit import also, committing


@dataclass(frozen=True)
class Expired:
    """What went: how many snapshots, and how many files that were theirs alone."""

    snapshots: int
    files: int


def expire(table: Table, ids: Collection[int]) -> Expired:
    """Expire these snapshots in one commit, then remove what only they referred to.

    A run that ends between the two leaves files that nothing refers to: an engine's removal of orphan files finds them.

    Args:
        table: just loaded.
        ids: of its snapshots, none that a branch or tag names.

    Raises:
        Terminal: a branch or tag names one of them; nothing was changed.
        Transient: another writer committed in the same moment; nothing was changed.
    """
    if not ids:
        return Expired(0, 0)
    named = {ref.snapshot_id: name for name, ref in table.metadata.refs.items()}
    if kept := named.keys() & set(ids):
        raise Terminal(f"{table.name()[-1]}: snapshot {min(kept)} is kept by {named[min(kept)]!r} and was not expired")
    theirs = _files(table, [s for s in table.snapshots() if s.snapshot_id in ids])
    with committing(table) as transaction:
        also(transaction, RemoveSnapshotsUpdate.model_validate({"snapshot-ids": sorted(ids)}))
    table.refresh()
    unused = theirs - _files(table, table.snapshots())
    for path in unused:
        table.io.delete(path)
    return Expired(len(ids), len(unused))


def _files(table: Table, snapshots: Iterable[Snapshot]) -> set[str]:
    """Return every file that these snapshots need: manifest lists, manifests, and the data files alive in them."""
    found: set[str] = set()
    for snapshot in snapshots:
        found.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in found:
                found.add(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
                found |= {entry.data_file.file_path for entry in entries}
    return found
