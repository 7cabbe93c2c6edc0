"""What a point-in-time engine does, whichever it is: `LakeOfflineStore` puts one behind Feast."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from lockstep.lake.engine import TimeRange
from lockstep.offline.semantics import ViewRead


class Engine(Protocol):
    """Answers from the tables of one lake, by the definitions in `semantics`."""

    def retrieve(
        self, spine: pa.Table, reads: Sequence[ViewRead], *, time_column: str, known_at: datetime | None
    ) -> Iterator[pa.Table]:
        """Yield the spine as it is, a part at a time, with the columns of each view added in the order of `reads`.

        Args:
            spine: the entity rows, which `check_spine` let through.
            reads: what to read.
            time_column: the spine's column with the time each row asks for.
            known_at: None answers each row with what was known at its own time; a time answers all with what was known then.

        Raises:
            BadInput: rows of a table contradict each other.
            VerificationFailed: the engine lost, doubled or moved a row.
        """
        ...

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
        """Return rows of a table, in no order.

        Args:
            table: the table.
            columns: what to return of it.
            within: which rows, by a column of times.
            snapshot_id: as of which snapshot; None is the newest.
            newest_of: only one row for each combination of these columns' values: that with the greatest `newest_by`. Without
                a column that is one row of all; None is every row.
            newest_by: columns that are compared in this order.
        """
        ...

    def query(self, sql: str, snapshot_of: Callable[[str], int]) -> pa.Table:
        """Return what SQL over the lake's tables gives; it may be larger than memory.

        Args:
            sql: one query in the engine's own dialect; tables have their names in the lake.
            snapshot_of: tells as of which snapshot a table is read.

        Raises:
            BadInput: the SQL does not run, is no query, or names a table that the lake does not have.
        """
        ...
