"""Append a planned range of ticks to the view's table, once, and say so in the ledger."""

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa

from lockstep.clock import MICROSECOND, from_micros, to_micros
from lockstep.errors import BadInput, SchemaDrift, UseCaseError
from lockstep.lake import Lake, Snapshot
from lockstep.lake.engine import TimeRange, connect, newest_by_key, quote
from lockstep.lake.snapshots import COMPUTE_ID, DEFINITION, QUARANTINED, TICK
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import ComputeRow, Mode, State, correctable
from lockstep.settings import Settings
from lockstep.views import ticks
from lockstep.views.declare import ARROW_TYPES, CREATED_TIMESTAMP, EVENT_TIMESTAMP, StoredView
from lockstep.views.intake import check_source, register_source
from lockstep.views.ticks import TickQuery, TickRange

_PART_ROWS = 200_000


@dataclass(frozen=True)
class Appended:
    """What a range left in the view's table: its snapshot, the rows this run appended, and the source rows left out."""

    snapshot: Snapshot
    rows: int = 0
    quarantined: int = 0


@dataclass(frozen=True)
class _Found:
    """The rows of a range: how many, how many rows of the source were left out, and they themselves, in parts of whole days."""

    rows: int
    quarantined: int
    parts: Iterator[pa.Table]


@dataclass(frozen=True)
class Execution:
    """Computes planned ranges of one view.

    Attributes:
        settings: the engine's limits, and the clock.
        lake: has the source and the view's table.
        ledger: has the planned ranges.
        query: of the view.
    """

    settings: Settings
    lake: Lake
    ledger: Ledger
    query: TickQuery[StoredView]

    @property
    def view(self) -> StoredView:
        """Whose ticks are computed."""
        return self.query.view

    def tiles(self) -> list[ComputeRow]:
        """Return the ranges that were computed, or are planned to be, for the first time, in the order of their ticks."""
        return [row for row in self.ledger.computes(self.view.name) if row.mode is not Mode.CORRECT]

    def settle(self, *, tiles: bool = True) -> list[ComputeRow]:
        """Finish what earlier runs planned and did not commit, in that order; return the view's tiles.

        Args:
            tiles: False finishes corrections alone, and takes note of tiles that are in the table already.

        Raises:
            The same as `finish`. A correction that can be computed no more is given up, and the next run goes on without it.
        """
        rows = self.ledger.computes(self.view.name)
        if any(row.state is not State.COMMITTED for row in rows):
            self._move_from_expired_source(rows)
            rows = self.ledger.computes(self.view.name)
        self._warn_of_what_went(rows)
        for row in sorted(rows, key=lambda row: row.id):
            if row.state is State.COMMITTED:
                continue
            if row.mode is Mode.CORRECT:
                self._finish_correction(row)
            elif tiles or self._find(row, self.lake.lineage(self.view.table)) is not None:
                self.finish(row)
        return self.tiles()

    def _finish_correction(self, row: ComputeRow) -> None:
        try:
            self.finish(row)
        except (BadInput, SchemaDrift, UseCaseError):
            self.ledger.give_up(row)
            logging.getLogger(__name__).warning(
                "%s: the ticks after %s up to %s stay as they are: their correction is given up, for the reason that follows",
                *(self.view.name, row.tick_from.isoformat(), row.tick_to.isoformat()),
            )
            raise

    def _move_from_expired_source(self, rows: Sequence[ComputeRow]) -> None:
        """Let tiles that were planned to be read from a snapshot that has expired since be read from the newest one.

        Nobody has seen anything of them yet, and rows that became known after they were planned are left out anyway.
        """
        table = self.view.source.table
        current = self.lake.current(table) if self.lake.exists(table) else None
        snapshots = self.lake.lineage(self.view.table)
        unseen = [row.id for row in rows if row.state is not State.COMMITTED and self._find(row, snapshots) is None]
        tiles = {row.id for row in rows if row.mode is not Mode.CORRECT}
        if current is not None and (only := tiles.intersection(unseen)):
            alive = {s.id for s in self.lake.snapshots(table)}
            self.ledger.move_sources(table, alive, current.id, only=only)

    def _warn_of_what_went(self, rows: Sequence[ComputeRow]) -> None:
        """Say which ticks are computed and not in the table: it was rolled back, or dropped and made again."""
        alive, lineage = ({s.id for s in of(self.view.table)} for of in (self.lake.snapshots, self.lake.lineage))
        gone = [
            row for row in rows if row.state is State.COMMITTED and (row.snapshot_id in alive - lineage or not alive)
        ]
        if gone:
            since, until = min(row.tick_from for row in gone).isoformat(), max(row.tick_to for row in gone).isoformat()
            logging.getLogger(__name__).warning(
                "%s: its table was %s, with ticks after %s up to %s that are computed; "
                "`lockstep backfill %s --from %s --to %s` computes them again",
                *(self.view.name, "rolled back" if alive else "dropped and made again", since, until),
                *(self.view.name, since, until),
            )

    def finish(self, row: ComputeRow) -> Appended:
        """Append a planned range once.

        A restart finds the snapshot of an append that was not committed to the ledger; of two runs at once, the one that commits
        second finds the table moved on, fails as transient, and finds the first one's snapshot when it is tried again.

        Raises:
            BadInput: a snapshot it reads has expired.
            SchemaDrift: the source, or the definition under which the table was computed, is not the view's.
            Transient: another writer committed first.
            UseCaseError: a value, sum or square does not fit its column.
        """
        table = self.view.table
        if row.state is State.COMMITTED and row.snapshot_id is not None:
            return Appended(self.lake.snapshot(table, row.snapshot_id))
        snapshots = self.lake.lineage(table)
        if (done := self._find(row, snapshots)) is not None:
            added = int(done.properties.get("added-records", "0"))
            self.ledger.commit_compute(row, done.id, added, self.settings.clock.now())
            return Appended(done, quarantined=int(done.properties.get(QUARANTINED, "0")))
        if row.mode is not Mode.CORRECT:
            self.refuse_other_definition(snapshots)
        with self._found(row) as found:
            properties = self._properties(row, snapshots) | {QUARANTINED: str(found.quarantined)}
            after = snapshots[-1].sequence if snapshots else 0
            snapshot = self.lake.append_parts(table, found.parts, properties, after=after)
        self.ledger.commit_compute(row, snapshot.id, found.rows, self.settings.clock.now())
        return Appended(snapshot, found.rows, found.quarantined)

    def refuse_other_definition(self, snapshots: Sequence[Snapshot]) -> None:
        """Refuse to go on from ticks that were computed under another definition.

        Raises:
            SchemaDrift: the table's last tick was.
        """
        under = _definition(snapshots)
        if under is None or under == self.view.definition_hash:
            return
        name, last = self.view.name, from_micros(_watermark(snapshots) or 0)
        again = self._ranges_to_correct()
        renamed = "give the view a new name, which gets a table of its own"
        hint = f"its source has expired, so that tick cannot be computed again: {renamed}"
        if again and again[-1][1] >= last:
            since = again[-1][0].isoformat()
            command = f"`lockstep backfill {name} --from {since} --to {last.isoformat()}`"
            hint = f"compute what was wrong again, up to that tick: {command}; or {renamed}"
        raise SchemaDrift(
            f"view {name}: its table was computed under another definition up to {last.isoformat()} "
            f"({under[:12]}, now {self.view.definition_hash[:12]})",
            hint=hint,
        )

    def _ranges_to_correct(self) -> list[tuple[datetime, datetime]]:
        source = self.view.source.table
        alive = {s.id for s in self.lake.snapshots(source)} if self.lake.exists(source) else set[int]()
        return correctable(self.tiles(), alive)

    def check_source(self, row: ComputeRow) -> None:
        """Refuse what a range reads if it is not what the view declares.

        Raises:
            BadInput: the view has another source now, or the snapshot has expired.
            SchemaDrift: a column is missing or has another type.
        """
        check_source(self.lake, self.query, self._source(row))

    def _source(self, row: ComputeRow) -> int:
        table = self.view.source.table
        if table not in row.sources:
            raise BadInput(
                f"{self.view.name}: the ticks after {row.tick_from.isoformat()} were computed from "
                f"{', '.join(row.sources)}, not from {table}",
                hint="give the view a new name, which gets a table of its own",
            )
        return row.sources[table]

    def _find(self, row: ComputeRow, snapshots: Sequence[Snapshot]) -> Snapshot | None:
        """Return the snapshot of the table's lineage that has the row's ticks, if any."""
        found = next((s for s in snapshots if s.properties.get(COMPUTE_ID) == str(row.id)), None)
        return found if found and self.lake.holds(self.view.table, found.id) else None

    def _properties(self, row: ComputeRow, snapshots: Sequence[Snapshot]) -> dict[str, str]:
        """Return what the snapshot says of itself: a watermark that never goes back, and the definition of the last tick."""
        last, before = to_micros(row.tick_to), _watermark(snapshots)
        watermark = last if before is None else max(last, before)
        definition = self.view.definition_hash if last == watermark else _definition(snapshots)
        named = {} if definition is None else {DEFINITION: definition}
        return {COMPUTE_ID: str(row.id), TICK: str(watermark), **named}

    def _first_reading(self, row: ComputeRow) -> ComputeRow:
        """Return the tile that a row computes: itself, or the one that it corrects."""
        if row.mode is not Mode.CORRECT:
            return row
        return next(tile for tile in self.tiles() if tile.tick_from <= row.tick_from < tile.tick_to)

    @contextmanager
    def _found(self, row: ComputeRow) -> Generator["_Found"]:
        """Give what a range has to append."""
        view, tile, correct = self.view, self._first_reading(row), row.mode is Mode.CORRECT
        every = view.every // MICROSECOND
        span = TickRange(
            after=to_micros(row.tick_from) // every,
            last=to_micros(row.tick_to) // every,
            known_per_tick=tile.mode is Mode.BOOTSTRAP,
        )
        self.check_source(row)
        with connect(self.settings) as connection:
            source = self._source(row)
            quarantined = register_source(self.lake, connection, self.query, source, span, tile.planned_at)
            if correct:
                self._register_table(connection, span)
            else:
                self._register_answers(connection, from_micros(span.first * every))
            connection.execute(
                f"CREATE TEMP VIEW {ticks.SPAN} AS "
                f"SELECT {span.first}::BIGINT AS {ticks.FIRST}, {span.last}::BIGINT AS {ticks.LAST}"
            )
            # Through a table: the relation API binds a query twice, which for one this long takes a quarter of its time.
            text = self.query.sql("duckdb", known_per_tick=span.known_per_tick, correct=correct)
            with _refusing_what_does_not_fit(view):
                connection.execute(f"CREATE TEMP TABLE found AS {text}")
            (rows,) = connection.execute("SELECT count(*) FROM found").fetchall()[0]
            yield _Found(rows, quarantined, (self._as_appended(row, part) for part in self._by_day(connection)))

    def _by_day(self, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.Table]:
        """Yield what was found in the order of its ticks, in parts of whole days; a day of more rows than a part is cut."""
        rows = connection.sql(f"FROM found ORDER BY {ticks.TICK}, {ticks.KEY}").to_arrow_reader(_PART_ROWS)
        held = rows.schema.empty_table()
        for batch in rows:
            part = pa.concat_tables([held, pa.Table.from_batches([batch])])
            days = part[ticks.TICK].to_numpy() // self.view.ticks_per_day
            last_begins = int(np.searchsorted(days, days[-1]))
            yield part.slice(0, last_begins or len(days))
            held = part.slice(last_begins or len(days))
        yield held

    def _as_appended(self, row: ComputeRow, found: pa.Table) -> pa.Table:
        """Return rows as the view's table has them: with their times."""
        view = self.view
        key, tick, *features = found.columns
        micros = tick.to_numpy() * (view.every // MICROSECOND)
        event = pa.array(micros, pa.int64()).cast(ARROW_TYPES["timestamp"])
        created = pa.repeat(pa.scalar(row.planned_at, ARROW_TYPES["timestamp"]), len(event))
        if row.mode is Mode.BOOTSTRAP:
            created = pa.array(micros + view.compute_lag // MICROSECOND, pa.int64()).cast(ARROW_TYPES["timestamp"])
        with _refusing_what_does_not_fit(view):
            return pa.table([key, *features, event, created], names=view.schema.names).cast(view.schema)

    def _register_answers(self, connection: duckdb.DuckDBPyConnection, tick: datetime) -> None:
        """Register, per key, what is compared of the row that the view's table answers with at `tick`."""
        view, oldest = self.view, self.query.answers_for
        columns = [view.entity.join_key, *self.query.answer_columns.values(), EVENT_TIMESTAMP, CREATED_TIMESTAMP]
        within = TimeRange(EVENT_TIMESTAMP, None if oldest is None else tick - oldest, tick + MICROSECOND)
        self.lake.register(connection, "stored", view.table, columns=columns, within=within)
        order = (EVENT_TIMESTAMP, CREATED_TIMESTAMP)
        newest = newest_by_key(view.entity.join_key, ticks.KEY, self.query.answer_columns, order, "stored")
        connection.execute(f"CREATE TEMP VIEW {ticks.ANSWERED} AS {newest}")

    def _register_table(self, connection: duckdb.DuckDBPyConnection, span: TickRange) -> None:
        """Register what the view's table answers with at the first tick of a range, and the newest row a key and tick within.

        Raises:
            UseCaseError: the table has rows between the view's ticks.
        """
        view, key, every = self.view, self.view.entity.join_key, self.view.every // MICROSECOND
        first, last = from_micros(span.first * every), from_micros(span.last * every)
        columns = [*view.schema.names]
        within = TimeRange(EVENT_TIMESTAMP, first - view.ttl if view.ttl else None, last + MICROSECOND)
        self.lake.register(connection, "raw_stored", view.table, columns=columns, within=within)
        features = "".join(
            f", {quote(column)} AS {quote(name)}" for name, column in self.query.feature_columns.items()
        )
        connection.execute(
            f"CREATE TEMP TABLE stored AS SELECT {quote(key)} AS key, epoch_us({EVENT_TIMESTAMP}) AS event_us, "
            f"epoch_us({CREATED_TIMESTAMP}) AS created_us, epoch_us({EVENT_TIMESTAMP}) // {every} AS tick{features} "
            "FROM raw_stored"
        )
        if connection.execute(f"SELECT count(*) FROM stored WHERE event_us % {every} <> 0").fetchall()[0][0]:
            raise UseCaseError(
                f"view {view.name}: its table has rows between ticks of {view.every}",
                hint="ticks of another length are another view: give it a new name",
            )
        names = {name: name for name in (ticks.TICK, *self.query.feature_columns)}
        answers = newest_by_key("key", ticks.KEY, names, ("event_us", "created_us"), "stored", f"tick <= {span.first}")
        connection.execute(f"CREATE TEMP VIEW {ticks.ANSWERED} AS {answers}")
        connection.execute(
            f"CREATE TEMP VIEW {ticks.WRITTEN} AS SELECT * EXCLUDE (event_us, created_us) FROM stored "
            f"WHERE tick >= {span.first} QUALIFY row_number() OVER (PARTITION BY key, tick ORDER BY created_us DESC) = 1"
        )


def _definition(snapshots: Sequence[Snapshot]) -> str | None:
    """Return the hash under which the table's last tick was computed; None if no snapshot that is left says so."""
    return next((s.properties[DEFINITION] for s in reversed(snapshots) if DEFINITION in s.properties), None)


def _watermark(snapshots: Sequence[Snapshot]) -> int | None:
    return max((s.tick for s in snapshots if s.tick is not None), default=None)


@contextmanager
def _refusing_what_does_not_fit(view: StoredView) -> Generator[None]:
    """Say whose number it was: DuckDB multiplies in 64 bits and adds in 128, which the table's columns do not have."""
    try:
        yield
    except (duckdb.OutOfRangeException, duckdb.ConversionException, pa.ArrowInvalid) as beyond:
        raise UseCaseError(
            f"view {view.name}: a value does not fit the type of its column, or a sum or square left 64 bits: {beyond}",
            hint="sum a coarser unit, or over shorter windows; or the source holds a value that cannot be",
        ) from beyond
