"""Compaction, as an engine that keeps a lake in order does it: all files become one, and no row changes.

PyIceberg 0.12 has none, so this is its overwriting producer with the operation that the Iceberg specification has for it.
"""

from typing import Any

from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update.snapshot import _OverwriteFiles


class _Replace(_OverwriteFiles):
    def _summary(self, snapshot_properties: Any = None) -> Summary:
        summary = super()._summary(snapshot_properties or {})
        return Summary(operation=Operation.REPLACE, **summary.additional_properties)


def compact(table: Table) -> None:
    """Replace the files of a table by new ones with the same rows."""
    rows = table.scan().to_arrow()
    with table.transaction() as transaction:
        replace = _Replace(operation=Operation.OVERWRITE, transaction=transaction, io=table.io)
        for task in table.scan().plan_files():
            replace.delete_data_file(task.file)
        for file in _dataframe_to_data_files(table_metadata=table.metadata, df=rows, io=table.io):
            replace.append_data_file(file)
        replace.commit()
