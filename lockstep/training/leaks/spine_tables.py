"""The spine's SQL, run over the tables as they are and over changed ones: without what comes later, with other labels.

The changes are views in the engine, so the tables may be larger than memory; the SQL sees them under their own names.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa

from lockstep.errors import UseCaseError
from lockstep.lake import Lake
from lockstep.lake.engine import connect, quote
from lockstep.settings import Settings
from lockstep.training.spine import run_spine
from lockstep.views.declare import EVENT_TIMESTAMP
from lockstep.views.use_case import ModelRecipe, UseCase


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
        keys: the join keys.
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
        self.register_times(times_us)
        changed: dict[str, str] = {}
        for table in self.labelled:
            outcome = {self.recipe.label, self.recipe.protocol.group} & set(self.recipe.spine_tables[table])
            there = (
                f"epoch_us({quote(self.event_times[table])}) IN (SELECT time_us FROM lockstep_times) "
                f"AND {self._unknown(table, cut_us, gap_us)}"
            )
            flipped = ", ".join(
                f"CASE WHEN {there} THEN {other_value(table, column)} ELSE {quote(column)} END AS {quote(column)}"
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

    def _unknown(self, table: str, cut_us: int, gap_us: int) -> str:
        """Return the condition that a row's event lies before a time, and its label was not known before it.

        When it became known the table says, if it has the column of which the spine says so; else the gap after the event.
        """
        event = f"epoch_us({quote(self.event_times[table])})"
        column = self.recipe.label_known_at
        if column not in self.recipe.spine_tables[table]:
            return f"({event} > {cut_us - gap_us} AND {event} < {cut_us})"
        return f"({event} < {cut_us} AND coalesce(epoch_us({quote(column)}) >= {cut_us}, true))"

    def register_times(self, times_us: Sequence[int]) -> None:
        """Make times readable in the engine, as `time_us` of `lockstep_times`."""
        self.connection.register("lockstep_times", pa.table({"time_us": pa.array(times_us, pa.int64())}))


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


def other_value(table: str, column: str) -> str:
    """Return the greatest value of the column instead of another one, or the least instead of the greatest; null is null."""
    name, source = quote(column), quote(as_it_is(table))
    least, greatest = (f"(SELECT {function}({name}) FROM {source})" for function in ("min", "max"))
    return f"CASE WHEN {name} IS NULL THEN NULL WHEN {name} = {greatest} THEN {least} ELSE {greatest} END"
