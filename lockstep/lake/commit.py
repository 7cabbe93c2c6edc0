"""Append to an Iceberg table in one commit, without PyIceberg's copies of everything the table ever was."""

import itertools
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException

# What Transaction.append calls; it takes a partitioned table's rows at once or not at all.
from pyiceberg.io.pyarrow import _dataframe_to_data_files  # pyright: ignore[reportPrivateUsage]
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import TableUpdate, ValidatableTableRequirement

from lockstep.errors import Transient


class _Transaction(Transaction):
    """A transaction that applies its updates to the table's metadata once.

    PyIceberg 0.12 deep-copies the metadata, each snapshot in it, whenever somebody looks at a transaction's table: twenty times
    an append, which then costs more with every snapshot (0.05 s at 30 of them, 0.18 s at 180).
    """

    _seen: tuple[TableMetadata, tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        base, updates = self._table.metadata, self._updates
        if self._seen is None or self._seen[0] is not base or self._seen[1] is not updates:
            self._seen = (base, updates, super().table_metadata)
        return self._seen[2]


def append_rows(table: Table, parts: Iterable[pa.Table], properties: Mapping[str, str]) -> None:
    """Append rows of the table's own schema in one commit, with these properties in the snapshot's summary.

    A part is written before the next one is drawn. Each gets files of its own in every partition that it has rows of.

    Raises:
        Transient: another writer committed first; nothing was appended.
    """
    number = itertools.count()
    with committing(table) as transaction:
        producer = transaction.update_snapshot(snapshot_properties=dict(properties)).merge_append()
        with producer as snapshot:
            for part in parts:
                if part.num_rows:
                    metadata = transaction.table_metadata
                    for file in _dataframe_to_data_files(metadata, part, table.io, snapshot.commit_uuid, number):
                        snapshot.append_data_file(file)


def replace_rows(table: Table, rows: pa.RecordBatchReader, properties: Mapping[str, str]) -> None:
    """Put rows of the table's own schema in place of all it has, a batch at a time, in one commit; it is not partitioned.

    Raises:
        Transient: another writer committed first; nothing was changed.
    """
    with committing(table) as transaction:
        write = transaction.append if table.current_snapshot() is None else transaction.overwrite
        write(rows, snapshot_properties=dict(properties))


@contextmanager
def committing(table: Table) -> Generator[Transaction]:
    """Give a transaction that is committed at the end of the block.

    Raises:
        Transient: another writer committed first; nothing was changed.
    """
    try:
        with _Transaction(table) as transaction:
            yield transaction
    except CommitFailedException as lost:
        name = table.name()[-1]
        raise Transient(f"{name}: another writer committed first: {lost}", hint="run the step again") from lost


def also(
    transaction: Transaction, *updates: TableUpdate, requirements: Sequence[ValidatableTableRequirement] = ()
) -> None:
    """Make these changes in the transaction's commit too, if the table is then as these requirements say."""
    # PyIceberg's own builders call it; it lists its own requirements as a type, and asks any.
    transaction._stage(updates, tuple(requirements))  # pyright: ignore[reportPrivateUsage, reportArgumentType]
