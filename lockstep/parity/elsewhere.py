"""Find whose row was read, where it was not the row of the key that was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lockstep.contract import View
from lockstep.lake.engine import connect, quote
from lockstep.parity.expect import Looked, rows_ever
from lockstep.parity.sample import ServedView
from lockstep.settings import Settings
from lockstep.views.declare import ARROW_TYPES, CREATED_TIMESTAMP, EVENT_TIMESTAMP

MOST_LOOKED_FOR = 5_000
"""Rows of a view: so many are enough to see whose they are, and a log that is all wrong takes no longer than one that is not."""

MOST_KEYS = 3
"""Of so many keys at most the row has to be: one that many keys share, as of those that did nothing, tells nothing."""


@dataclass(frozen=True)
class Elsewhere:
    """Other keys that have the very row that was read.

    Attributes:
        key: the values of one such key's join keys; none where there is no such key.
        keys: how many there are.
    """

    key: tuple[Any, ...]
    keys: int

    @property
    def tells(self) -> bool:
        """Whether it is by no chance that the row is another key's."""
        return 0 < self.keys <= MOST_KEYS


def rows_elsewhere(settings: Settings, looked: Looked, read: Mapping[int, ServedView]) -> dict[int, Elsewhere]:
    """Return which other keys have, or had, the row that was read: its (event, created) and all its values.

    Of each row that was looked for there is an answer.

    Args:
        settings: for the embedded engine.
        looked: the view, and what its table was.
        read: what was read, by any number; of keys that have no such row.
    """
    view, columns = looked.view, [column.name for column in looked.view.columns]
    asked = _asked(view, columns, dict(list(read.items())[:MOST_LOOKED_FOR]))
    if not (asked.num_rows and looked.past.lives):
        return {}
    keys = ", ".join(f"s.{quote(key.name)}" for key in view.join_keys)
    equal = " AND ".join(f"s.{quote(name)} IS NOT DISTINCT FROM a.{quote(name)}" for name in columns)
    with connect(settings) as connection:
        connection.register("asked", asked)
        found: Sequence[tuple[int, dict[str, Any], int]] = connection.execute(
            f"""
            SELECT n, min({{ {", ".join(f"'{key.name}': s.{quote(key.name)}" for key in view.join_keys)} }}),
                count(DISTINCT ({keys}))
            FROM asked a JOIN ({rows_ever(view, looked.past, columns)}) s USING ({EVENT_TIMESTAMP}, {CREATED_TIMESTAMP})
            WHERE {equal} GROUP BY n
            """
        ).fetchall()
    nowhere = dict.fromkeys(asked["n"].to_pylist(), Elsewhere((), 0))
    return nowhere | {n: Elsewhere(tuple(key.values()), many) for n, key, many in found}


def _asked(view: View, columns: Sequence[str], read: Mapping[int, ServedView]) -> pa.Table:
    """Return what was read as a table, without rows that hold what their columns cannot."""
    schema = pa.schema(
        [
            ("n", pa.int64()),
            *((column.name, ARROW_TYPES[column.dtype]) for column in view.columns),
            (EVENT_TIMESTAMP, pa.int64()),
            (CREATED_TIMESTAMP, pa.int64()),
        ]
    )
    parts: list[pa.RecordBatch] = []
    for n, row in read.items():
        if row.event_us is None or row.created_us is None or not all(name in row.values for name in columns):
            continue
        told = {"n": n, EVENT_TIMESTAMP: row.event_us, CREATED_TIMESTAMP: row.created_us}
        try:
            parts.append(pa.RecordBatch.from_pylist([told | {name: row.values[name] for name in columns}], schema))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            continue
    return pa.Table.from_batches(parts, schema).combine_chunks()
