"""The spine's SQL, run with copies of some rows, as if more had happened then or a moment later."""
# pyarrow's compute functions are made at run time.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lockstep.lake.engine import quote
from lockstep.training.leaks.spine_tables import SpineTables, as_it_is, other_value

_COPIES = 2
_STRINGS = (pa.string(), pa.large_string())


@dataclass(frozen=True)
class SpineCopies:
    """Copies rows of the tables; with their keys.

    Attributes:
        tables: what the SQL reads.
    """

    tables: SpineTables

    def run(self, times_us: Sequence[int], later_us: int = 0) -> pa.Table:
        """Run it with copies of all rows of these event times, as if more had happened then, or that much later.

        Of each row there are two copies under new names (integers and texts that are unique in a table), one otherwise the same
        and one with other numbers; both with the same keys and label.
        """
        self.tables.register_times(times_us)
        copied = {table: self._copies(table, later_us) for table in self.tables.recipe.spine_tables}
        for name in sorted(self._names):
            _rename(copied, name, self._extremes(name))
        for table, rows in copied.items():
            self.tables.connection.register(f"lockstep_copies_{table}", rows)
        return self.tables.run(
            {
                table: f"SELECT {_listed(columns)} FROM {quote(as_it_is(table))} UNION ALL "
                f"SELECT {_listed(columns)} FROM {quote(f'lockstep_copies_{table}')}"
                for table, columns in self.tables.recipe.spine_tables.items()
            }
        )

    def _copies(self, table: str, later_us: int) -> pa.Table:
        """Return the copies of a table's rows at the registered times, not renamed yet; the first half are the same."""
        there = f"epoch_us({quote(self.tables.event_times[table])}) IN (SELECT time_us FROM lockstep_times)"
        kept = {*self.tables.keys, self.tables.recipe.label, *self._names}
        types = self._types[table]

        def copy(column: str, *, same: bool) -> str:
            if pa.types.is_timestamp(types[column]):
                return f"{quote(column)} + INTERVAL {later_us} MICROSECONDS AS {quote(column)}"
            number = pa.types.is_integer(types[column]) or pa.types.is_floating(types[column])
            if same or column in kept or not number:
                return quote(column)
            return f"{other_value(table, column)} AS {quote(column)}"

        halves = [
            f"SELECT {', '.join(copy(c, same=same) for c in self.tables.recipe.spine_tables[table])} "
            f"FROM {quote(as_it_is(table))} WHERE {there}"
            for same in (True, False)
        ]
        return pa.concat_tables(
            [self.tables.connection.sql(half).to_arrow_table() for half in halves]
        ).combine_chunks()

    @cached_property
    def _names(self) -> frozenset[str]:
        """The columns that name a row: integers or texts that no two rows of some table have in common."""
        return frozenset(name for table in self.tables.recipe.spine_tables for name in self._names_in(table))

    @cached_property
    def _types(self) -> dict[str, dict[str, pa.DataType]]:
        """The type of each column of each table."""
        empty = {
            t: self.tables.connection.sql(f"FROM {quote(as_it_is(t))} LIMIT 0")
            for t in self.tables.recipe.spine_tables
        }
        return {table: {f.name: f.type for f in none.to_arrow_table().schema} for table, none in empty.items()}

    def _names_in(self, table: str) -> list[str]:
        types = self._types[table]
        kinds = [
            column
            for column in self.tables.recipe.spine_tables[table]
            if (pa.types.is_integer(types[column]) or types[column] in _STRINGS)
            and column not in {*self.tables.keys, self.tables.recipe.label, self.tables.recipe.protocol.group}
        ]
        if not kinds:
            return []
        unique = ", ".join(f"count(DISTINCT {quote(c)}) = count(*)" for c in kinds)
        (told,) = self.tables.connection.sql(f"SELECT {unique} FROM {quote(as_it_is(table))}").fetchall()
        return [column for column, alone in zip(kinds, told, strict=True) if alone]

    def _extremes(self, name: str) -> tuple[int, int]:
        """Return the least and the greatest value of an integer column of all tables that have it."""
        lows, highs = [0], [0]
        for table, columns in self.tables.recipe.spine_tables.items():
            if name in columns and pa.types.is_integer(self._types[table][name]):
                sql = f"SELECT min({quote(name)}), max({quote(name)}) FROM {quote(as_it_is(table))}"
                for low, high in self.tables.connection.sql(sql).fetchall():
                    lows.append(low or 0)
                    highs.append(high or 0)
        return min(lows), max(highs)


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(quote, columns))


def _rename(copied: dict[str, pa.Table], name: str, extremes: tuple[int, int]) -> None:
    """Give the copies new names in a column, the same in each table where they had the same."""
    having = [table for table, rows in copied.items() if name in rows.column_names]
    if not any(copied[table].num_rows for table in having):
        return  # nothing happened at these times
    known = pa.chunked_array([chunk for table in having for chunk in copied[table][name].chunks]).unique()
    low, high = extremes
    for table in having:
        rows = copied[table]
        values, kind = rows[name].combine_chunks(), rows.schema.field(name).type
        copy = np.arange(rows.num_rows) // max(1, rows.num_rows // _COPIES)
        if kind in _STRINGS:
            new = pc.binary_join_element_wise(values, pa.array([f"~{n}" for n in copy], kind), pa.scalar("", kind))
        else:
            number = pc.index_in(values, value_set=known).fill_null(0).to_numpy()
            fits = high + 1 + _COPIES * len(known) <= 2 ** (kind.bit_width - 1) - 1
            first = high + 1 if fits else low - _COPIES * len(known)
            new = pa.array(
                first + copy * len(known) + number, pa.int64(), mask=values.is_null().to_numpy(zero_copy_only=False)
            ).cast(kind)
        copied[table] = rows.set_column(rows.column_names.index(name), name, new)
