"""The spine's SQL, run over the tables as they are and over changed ones: without what comes later, labels flipped, rows copied.

The changes are views in the engine, so the tables may be larger than memory; the SQL sees them under their own names.
"""
# pyarrow's compute functions are made at run time.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lockstep.errors import UseCaseError
from lockstep.lake import Lake
from lockstep.lake.engine import connect, quote
from lockstep.settings import Settings
from lockstep.training.spine import run_spine
from lockstep.views.declare import EVENT_TIMESTAMP
from lockstep.views.use_case import ModelRecipe, UseCase

_COPIES = 2
_STRINGS = (pa.string(), pa.large_string())


def as_it_is(table: str) -> str:
    """Return the name in the engine of a table as it is, of which the SQL sees a view under the table's own name."""
    return f"lockstep_real_{table}"


@dataclass(frozen=True)
class SpineTables:
    """The tables that a recipe's SQL reads, in an engine's session under the names of `as_it_is`.

    Attributes:
        connection: the session.
        recipe: has the SQL.
        event_times: for each of its tables the column with the time something happened.
        keys: the join keys; rows are copied with theirs.
        parameters: the SQL's `start`, `end` and `known_at`.
    """

    connection: duckdb.DuckDBPyConnection
    recipe: ModelRecipe
    event_times: Mapping[str, str]
    keys: Sequence[str]
    parameters: Mapping[str, datetime]

    @property
    def labelled(self) -> list[str]:
        """The tables with the label."""
        return [table for table, columns in self.recipe.spine_tables.items() if self.recipe.label in columns]

    def require_label(self) -> None:
        """Refuse a recipe whose label is found in no table under its name.

        Raises:
            UseCaseError: it is not.
        """
        if not self.labelled:
            raise UseCaseError(
                f"none of the tables that the spine of model {self.recipe.name!r} reads has a column {self.recipe.label!r}",
                hint="call the label in the spine what its table calls it: leaks are looked for by flipping it there",
            )

    def run(self, changed: Mapping[str, str] | None = None) -> pa.Table:
        """Run the SQL over the tables, some of them given by a query over `as_it_is` instead.

        Raises:
            UseCaseError: it does not run.
        """
        for table, columns in self.recipe.spine_tables.items():
            source = f"({changed[table]})" if changed and table in changed else quote(as_it_is(table))
            self.connection.execute(
                f"CREATE OR REPLACE TEMP VIEW {quote(table)} AS SELECT {', '.join(map(quote, columns))} FROM {source}"
            )
        return run_spine(self.connection, self.recipe, self.parameters)

    def without_later(self, cut_us: int) -> pa.Table:
        """Run it over what happened before a time."""
        return self.run(
            {
                table: f"FROM {quote(as_it_is(table))} WHERE epoch_us({quote(column)}) < {cut_us}"
                for table, column in self.event_times.items()
            }
        )

    def unknown_label_times(self, cut_us: int, gap_us: int) -> list[int]:
        """Return the event times of the rows whose event lies before a time and whose label was not known then, each once."""
        times: set[int] = set()
        for table in self.labelled:
            event = f"epoch_us({quote(self.event_times[table])})"
            found = self.connection.sql(
                f"SELECT DISTINCT {event} FROM {quote(as_it_is(table))} WHERE {self._unknown(table, cut_us, gap_us)}"
            )
            times.update(time for (time,) in found.fetchall())
        return sorted(times)

    def with_flipped_labels(self, times_us: Sequence[int], cut_us: int, gap_us: int) -> pa.Table:
        """Run it with other labels, and other kinds of positive, in those rows of these event times that were not known then.

        An event may have a row more for each time its label was looked at again; those known by `cut_us` stay.
        """
        self._register_times(times_us)
        changed: dict[str, str] = {}
        for table in self.labelled:
            outcome = {self.recipe.label, self.recipe.protocol.group} & set(self.recipe.spine_tables[table])
            there = (
                f"epoch_us({quote(self.event_times[table])}) IN (SELECT time_us FROM lockstep_times) "
                f"AND {self._unknown(table, cut_us, gap_us)}"
            )
            flipped = ", ".join(
                f"CASE WHEN {there} THEN {_other(table, column)} ELSE {quote(column)} END AS {quote(column)}"
                for column in sorted(outcome)
            )
            changed[table] = f"SELECT * REPLACE ({flipped}) FROM {quote(as_it_is(table))}"
        return self.run(changed)

    def with_moved_known_times(self, cut_us: int) -> pa.Table:
        """Run it with labels that were not known before a time known earlier than they were, by chance, and not before it either.

        Only events before it are meant. Earlier, so that what the SQL asks of labels (known by `$known_at`, known in time) stays.
        """
        changed: dict[str, str] = {}
        for table in self.labelled:
            column = self.recipe.label_known_at
            if column not in self.recipe.spine_tables[table]:
                continue
            name = quote(column)
            known = f"epoch_us({name})"
            after = f"to_microseconds(-(hash({known}) % ({known} - {cut_us} + 1)::UBIGINT)::BIGINT)"
            before = f"epoch_us({quote(self.event_times[table])}) < {cut_us} AND {known} >= {cut_us}"
            changed[table] = (
                f"SELECT * REPLACE (CASE WHEN {before} THEN {name} + {after} ELSE {name} END AS {name}) "
                f"FROM {quote(as_it_is(table))}"
            )
        return self.run(changed)

    def without_event(self, rows: pa.Table) -> pa.Table:
        """Return those rows at whose time, in microseconds, nothing happened to their keys.

        Tables without any of the keys say nothing if others have some; when labels became known is no time of an event.
        """
        told = {table: set(self.keys).intersection(columns) for table, columns in self.recipe.spine_tables.items()}
        self.connection.register("lockstep_asked", rows)
        left = "SELECT * FROM lockstep_asked"
        for table, keys in told.items():
            if self.event_times[table] == self.recipe.label_known_at or (not keys and any(told.values())):
                continue
            same = [f"epoch_us(there.{quote(self.event_times[table])}) = asked.{quote(EVENT_TIMESTAMP)}"]
            same += [f"there.{quote(key)}::VARCHAR = asked.{quote(key)}::VARCHAR" for key in sorted(keys)]
            left = f"FROM ({left}) AS asked ANTI JOIN {quote(as_it_is(table))} AS there ON {' AND '.join(same)}"
        return self.connection.sql(left).to_arrow_table()

    def with_copies(self, times_us: Sequence[int], later_us: int = 0) -> pa.Table:
        """Run it with copies of all rows of these event times, as if more had happened then, or that much later.

        Of each row there are two copies under new names (integers and texts that are unique in a table), one otherwise the same
        and one with other numbers; both with the same keys and label.
        """
        self._register_times(times_us)
        copied = {table: self._copies(table, later_us) for table in self.recipe.spine_tables}
        for name in sorted(self._names):
            _rename(copied, name, self._extremes(name))
        for table, rows in copied.items():
            self.connection.register(f"lockstep_copies_{table}", rows)
        return self.run(
            {
                table: f"SELECT {_listed(columns)} FROM {quote(as_it_is(table))} UNION ALL "
                f"SELECT {_listed(columns)} FROM {quote(f'lockstep_copies_{table}')}"
                for table, columns in self.recipe.spine_tables.items()
            }
        )

    def _unknown(self, table: str, cut_us: int, gap_us: int) -> str:
        """Return the condition that a row's event lies before a time, and its label was not known before it.

        When it became known the table says, if it has the column of which the spine says so; else the gap after the event.
        """
        event = f"epoch_us({quote(self.event_times[table])})"
        column = self.recipe.label_known_at
        if column not in self.recipe.spine_tables[table]:
            return f"({event} > {cut_us - gap_us} AND {event} < {cut_us})"
        return f"({event} < {cut_us} AND coalesce(epoch_us({quote(column)}) >= {cut_us}, true))"

    def _register_times(self, times_us: Sequence[int]) -> None:
        self.connection.register("lockstep_times", pa.table({"time_us": pa.array(times_us, pa.int64())}))

    def _copies(self, table: str, later_us: int) -> pa.Table:
        """Return the copies of a table's rows at the registered times, not renamed yet; the first half are the same."""
        there = f"epoch_us({quote(self.event_times[table])}) IN (SELECT time_us FROM lockstep_times)"
        kept = {*self.keys, self.recipe.label, *self._names}
        types = self._types[table]

        def copy(column: str, *, same: bool) -> str:
            if pa.types.is_timestamp(types[column]):
                return f"{quote(column)} + INTERVAL {later_us} MICROSECONDS AS {quote(column)}"
            number = pa.types.is_integer(types[column]) or pa.types.is_floating(types[column])
            if same or column in kept or not number:
                return quote(column)
            return f"{_other(table, column)} AS {quote(column)}"

        halves = [
            f"SELECT {', '.join(copy(c, same=same) for c in self.recipe.spine_tables[table])} "
            f"FROM {quote(as_it_is(table))} WHERE {there}"
            for same in (True, False)
        ]
        return pa.concat_tables([self.connection.sql(half).to_arrow_table() for half in halves]).combine_chunks()

    @cached_property
    def _names(self) -> frozenset[str]:
        """The columns that name a row: integers or texts that no two rows of some table have in common."""
        return frozenset(name for table in self.recipe.spine_tables for name in self._names_in(table))

    @cached_property
    def _types(self) -> dict[str, dict[str, pa.DataType]]:
        """The type of each column of each table."""
        empty = {t: self.connection.sql(f"FROM {quote(as_it_is(t))} LIMIT 0") for t in self.recipe.spine_tables}
        return {table: {f.name: f.type for f in none.to_arrow_table().schema} for table, none in empty.items()}

    def _names_in(self, table: str) -> list[str]:
        types = self._types[table]
        kinds = [
            column
            for column in self.recipe.spine_tables[table]
            if (pa.types.is_integer(types[column]) or types[column] in _STRINGS)
            and column not in {*self.keys, self.recipe.label, self.recipe.protocol.group}
        ]
        if not kinds:
            return []
        unique = ", ".join(f"count(DISTINCT {quote(c)}) = count(*)" for c in kinds)
        (told,) = self.connection.sql(f"SELECT {unique} FROM {quote(as_it_is(table))}").fetchall()
        return [column for column, alone in zip(kinds, told, strict=True) if alone]

    def _extremes(self, name: str) -> tuple[int, int]:
        """Return the least and the greatest value of an integer column of all tables that have it."""
        lows, highs = [0], [0]
        for table, columns in self.recipe.spine_tables.items():
            if name in columns and pa.types.is_integer(self._types[table][name]):
                sql = f"SELECT min({quote(name)}), max({quote(name)}) FROM {quote(as_it_is(table))}"
                for low, high in self.connection.sql(sql).fetchall():
                    lows.append(low or 0)
                    highs.append(high or 0)
        return min(lows), max(highs)


@contextmanager
def open_tables(
    settings: Settings,
    lake: Lake,
    use_case: UseCase,
    keys: Sequence[str],
    snapshots: Mapping[str, int],
    parameters: Mapping[str, datetime],
) -> Generator[SpineTables]:
    """Open the spine's tables in a session of the embedded engine, each at its snapshot.

    Raises:
        UseCaseError: one of them is neither a source nor a view of the use case, so that nobody knows when its rows happened.
    """
    recipe = use_case.model
    event_times = {table: _event_time(use_case, table) for table in recipe.spine_tables}
    with connect(settings) as connection:
        for table, columns in recipe.spine_tables.items():
            read = dict.fromkeys((*columns, event_times[table]))
            lake.register(connection, as_it_is(table), table, columns=tuple(read), snapshot_id=snapshots[table])
        yield SpineTables(connection, recipe, event_times, keys, parameters)


def _event_time(use_case: UseCase, table: str) -> str:
    if any(view.table == table for view in use_case.views):
        return EVENT_TIMESTAMP
    for source in use_case.sources:
        if source.table == table:
            return source.event_time
    raise UseCaseError(
        f"the spine of model {use_case.model.name!r} reads {table}, which is neither a source nor a view of the use case",
        hint="declare it as a source, so that its rows have a time",
    )


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(quote, columns))


def _other(table: str, column: str) -> str:
    """Return the greatest value of the column instead of another one, or the least instead of the greatest; null is null."""
    name, source = quote(column), quote(as_it_is(table))
    least, greatest = (f"(SELECT {function}({name}) FROM {source})" for function in ("min", "max"))
    return f"CASE WHEN {name} IS NULL THEN NULL WHEN {name} = {greatest} THEN {least} ELSE {greatest} END"


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
