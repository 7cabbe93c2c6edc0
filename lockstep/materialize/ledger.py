"""The ledger: what was computed and what was brought online, and what comes next.

Two kinds of row. A *compute* row is a range of ticks of one view; a *materialize* row is a range of its table's snapshots.
Each starts where the last of its kind ended, which a unique index holds against two planners at once: of ticks the second one
is handed the first one's row, of snapshots it looks anew. The index covers the modes that tile. A *repair* does not: it writes
again what is committed, where the online store has lost it, or a table was rolled back. Nor does *correct*: it computes again
ticks that a tile has computed. Of either a view has one unfinished row at most.
"""

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from datetime import datetime

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from lockstep.clock import MICROSECOND, from_micros, to_micros
from lockstep.errors import Terminal, Transient
from lockstep.hashing import digest
from lockstep.materialize.database import Database, who
from lockstep.materialize.ledger_rows import (
    COMPUTE,
    CORRECTS,
    MATERIALIZE,
    STORE,
    TILES,
    UNFINISHED,
    ComputeRow,
    MaterializeRow,
    Mode,
    Reach,
    Scope,
    State,
    as_planned,
    compute_row,
    materialize_row,
    reach_values,
    sources_text,
)
from lockstep.settings import Settings
from lockstep.sqlite import OpenOnce

_MOVABLE = frozenset({"sources"})  # expiry gives a compute row a later snapshot of its source
_OPENED = OpenOnce()


class Ledger:
    """One project's rows of the ledger.

    Args:
        database: where they are.
        project: whose rows.
    """

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project

    @classmethod
    def open(cls, settings: Settings, project: str) -> "Ledger":
        """Open the ledger the settings name, and make its tables when they are absent.

        Raises:
            Transient: it cannot be reached.
        """
        return _OPENED.get(settings.ledger_url, lambda: cls(Database.open(settings), project), project)

    def plan_compute(
        self,
        view: str,
        mode: Mode,
        tick_from: datetime,
        tick_to: datetime,
        sources: Mapping[str, int],
        planned_at: datetime,
    ) -> ComputeRow:
        """Claim a range of ticks; if somebody claimed one from the same start, return theirs.

        Raises:
            Transient: somebody claimed some of these ticks meanwhile, from another start, or others that they do not touch; or
                the ledger is busy.
        """
        values = self._range(view, mode, tick_from, tick_to, sources, planned_at)
        tiles = self._of(COMPUTE, view).where(TILES)
        with self._planning(COMPUTE, view) as connection:
            same = tiles.where(COMPUTE.c.tick_from == values["tick_from"])
            if (theirs := connection.execute(same).mappings().one_or_none()) is not None:
                return compute_row(theirs)
            over = tiles.where(COMPUTE.c.tick_from < values["tick_to"], COMPUTE.c.tick_to > values["tick_from"])
            if (theirs := connection.execute(over.limit(1)).mappings().one_or_none()) is not None:
                other = compute_row(theirs)
                raise Transient(
                    f"{view}: another run has claimed the ticks after {other.tick_from.isoformat()} up to "
                    f"{other.tick_to.isoformat()} meanwhile ({other.mode.value})",
                    hint="run the step again: it goes on from there",
                )
            bounds = sa.select(sa.func.min(COMPUTE.c.tick_from), sa.func.max(COMPUTE.c.tick_to)).where(
                COMPUTE.c.project == self._project, COMPUTE.c.view == view, TILES
            )
            first, last = connection.execute(bounds).one()
            if first is not None and values["tick_to"] != first and values["tick_from"] != last:
                raise Transient(
                    f"{view}: another run has claimed ticks after {from_micros(first).isoformat()} up to "
                    f"{from_micros(last).isoformat()} meanwhile; these would leave a hole",
                    hint="run the step again",
                )
            return self._inserted(connection, values)

    def plan_correct(
        self, view: str, tick_from: datetime, tick_to: datetime, sources: Mapping[str, int], planned_at: datetime
    ) -> ComputeRow:
        """Claim ticks that are computed already to compute them again; if somebody is at it, return their row.

        It is planned after every other row of the view, by a microsecond if need be: what is corrected has to be the newer.

        Raises:
            Transient: the ledger is busy.
        """
        with self._planning(COMPUTE, view) as connection:
            rows = connection.execute(self._of(COMPUTE, view)).mappings().all()
            unfinished = connection.execute(self._of(COMPUTE, view).where(CORRECTS)).mappings().one_or_none()
            if unfinished is not None:
                return compute_row(unfinished)
            newest = max(compute_row(row).planned_at for row in rows)
            at = max(planned_at, newest + MICROSECOND)
            return self._inserted(connection, self._range(view, Mode.CORRECT, tick_from, tick_to, sources, at))

    def _range(
        self,
        view: str,
        mode: Mode,
        tick_from: datetime,
        tick_to: datetime,
        sources: Mapping[str, int],
        planned_at: datetime,
    ) -> dict[str, object]:
        return {
            "project": self._project,
            "view": view,
            "mode": mode.value,
            "tick_from": to_micros(tick_from),
            "tick_to": to_micros(tick_to),
            "sources": sources_text(sources),
            "state": State.PLANNED.value,
            "planned_at": to_micros(planned_at),
            "planned_by": who(),
        }

    @contextmanager
    def _planning(self, table: sa.Table, view: str) -> Generator[sa.Connection]:
        """Give a transaction in which nobody else plans such rows of the view: what is planned follows from those there are."""
        try:
            with self._database.alone(f"lockstep {table.name} {self._project} {view}") as connection:
                yield connection
        except IntegrityError as refused:
            raise Terminal(f"the ledger refused a row of {table.name}: {refused.orig}") from refused

    @staticmethod
    def _inserted(connection: sa.Connection, values: Mapping[str, object]) -> ComputeRow:
        return compute_row(connection.execute(COMPUTE.insert().values(values).returning(COMPUTE)).mappings().one())

    def move_sources(self, table: str, alive: Collection[int], to: int, *, only: Collection[int] | None = None) -> int:
        """Let planned ranges of ticks be computed from another snapshot of a source table, where theirs is not alive.

        Args:
            table: the source.
            alive: its snapshots.
            to: the one to read instead.
            only: the ids of the ranges that may be; None is all.

        Returns:
            How many there were.
        """
        planned = sa.select(COMPUTE).where(COMPUTE.c.project == self._project, COMPUTE.c.state == State.PLANNED.value)
        if only is not None:
            planned = planned.where(COMPUTE.c.id.in_(only))
        moved = 0
        with self._database.transaction() as connection:
            for row in connection.execute(planned).mappings().all():
                sources = orjson.loads(row["sources"])
                if table in sources and sources[table] not in alive:
                    same = (COMPUTE.c.id == row["id"]) & (COMPUTE.c.state == State.PLANNED.value)
                    values = {"sources": sources_text({**sources, table: to})}
                    moved += connection.execute(COMPUTE.update().where(same).values(values)).rowcount
        return moved

    def give_up(self, row: ComputeRow) -> None:
        """Forget a correction that cannot be computed; nothing of it is in the table."""
        with self._database.transaction() as connection:
            connection.execute(COMPUTE.delete().where(COMPUTE.c.id == row.id, CORRECTS))

    def commit_compute(self, row: ComputeRow, snapshot_id: int, rows: int, at: datetime) -> None:
        """Note that a range of ticks is in the view's table."""
        values = {
            "state": State.COMMITTED.value,
            "snapshot_id": snapshot_id,
            "rows": rows,
            "committed_at": to_micros(at),
        }
        with self._database.transaction() as connection:
            connection.execute(COMPUTE.update().where(COMPUTE.c.id == row.id).values(values))

    def computes(self, view: str) -> list[ComputeRow]:
        """Return the view's compute rows in the order of their ticks, and of the same ticks in which they were planned."""
        query = self._of(COMPUTE, view).order_by(COMPUTE.c.tick_from, COMPUTE.c.id)
        return [compute_row(r) for r in self._database.all(query)]

    def computed_views(self) -> list[str]:
        """Return the names of the views that ranges of ticks were planned of, declared or not, sorted."""
        names = sa.select(COMPUTE.c.view).where(COMPUTE.c.project == self._project).distinct().order_by(COMPUTE.c.view)
        return [row["view"] for row in self._database.all(names)]

    def plan_materialize(
        self,
        view: str,
        mode: Mode,
        sequence_from: int,
        reach: Reach,
        planned_at: datetime,
        *,
        newest: int,
        instead_of: MaterializeRow | None = None,
    ) -> MaterializeRow | None:
        """Claim the snapshots after one, up to another; or, as a repair, plan to write them again.

        Args:
            view: which view.
            mode: *interval* or *repair*.
            sequence_from: the sequence number of the snapshot before the first.
            reach: the last one.
            planned_at: now.
            newest: the greatest id of the view's rows that the caller has seen.
            instead_of: an unfinished row that is not to be finished any more; it is forgotten.

        Returns:
            The row; None if somebody planned another row of the view meanwhile, or finished that one. So rows of greater
            numbers are of later states of the table, and one is under way at a time.

        Raises:
            Transient: the ledger is busy.
            Terminal: a constraint refuses the row.
        """
        values = {
            "project": self._project,
            "view": view,
            "mode": mode.value,
            "sequence_from": sequence_from,
            # What is given up may be online in part, and nobody knows where it ended.
            "writes_from": 0 if instead_of else sequence_from,
            "state": State.PLANNED.value,
            "planned_at": to_micros(planned_at),
            "planned_by": who(),
            **reach_values(reach),
        }
        ids = sa.select(sa.func.max(MATERIALIZE.c.id)).where(
            MATERIALIZE.c.project == self._project, MATERIALIZE.c.view == view
        )
        with self._planning(MATERIALIZE, view) as connection:
            if (connection.execute(ids).scalar_one() or 0) > newest:
                return None
            if instead_of is not None:
                given_up = MATERIALIZE.delete().where(MATERIALIZE.c.id == instead_of.id, UNFINISHED)
                if not connection.execute(given_up).rowcount:
                    return None
            planned = MATERIALIZE.insert().values(values).returning(MATERIALIZE)
            return materialize_row(connection.execute(planned).mappings().one())

    def start_writing(
        self, row: MaterializeRow, place: str, *, writes_from: int, writes_after_id: int | None, scope: Scope
    ) -> MaterializeRow | None:
        """Note that chunks are about to be written: where, after which snapshot, and what.

        Returns:
            The row; None if it is not as it was: somebody has committed it meanwhile, or planned it anew.
        """
        values = {
            "state": State.WRITING.value,
            "place": place,
            "writes_from": writes_from,
            "writes_after_id": writes_after_id,
            "scope": scope.value,
        }
        return self._moved(row, values, UNFINISHED & (MATERIALIZE.c.writes_from == row.writes_from))

    def verify(self, row: MaterializeRow, accepted: int, rejected: int, digest: str) -> bool:
        """Note that what was written was read back; return whether the row is still planned for the same place."""
        values = {
            "state": State.VERIFIED.value,
            "rows_accepted": accepted,
            "rows_rejected": rejected,
            "digest": digest,
        }
        return self._moved(row, values, UNFINISHED & as_planned(row)) is not None

    def commit_materialize(self, row: MaterializeRow, at: datetime) -> bool:
        """Note that an interval is online; return whether it was still the verified one, planned for the same place."""
        values = {"state": State.COMMITTED.value, "committed_at": to_micros(at)}
        verified = MATERIALIZE.c.state == State.VERIFIED.value
        return self._moved(row, values, verified & as_planned(row)) is not None

    def materializations(self, view: str, table_uuid: str | None = None) -> list[MaterializeRow]:
        """Return the view's materialize rows in the order in which they were planned: all, or those of one table of its name."""
        query = self._of(MATERIALIZE, view).order_by(MATERIALIZE.c.id)
        if table_uuid is not None:
            query = query.where(MATERIALIZE.c.table_uuid == table_uuid)
        return [materialize_row(r) for r in self._database.all(query)]

    def digest(self, view: str, until: datetime) -> str:
        """Return the hash of what the ledger says of a view up to a time: what was computed and brought online by then.

        What is committed later does not change it, nor does a source's snapshot that expires.
        """
        told = [
            [value for name, value in row.items() if name not in _MOVABLE]
            for table in (COMPUTE, MATERIALIZE)
            for row in self._database.all(
                self._of(table, view).where(table.c.committed_at <= to_micros(until)).order_by(table.c.id)
            )
        ]
        return digest(told)

    def newest_materialization(self, view: str) -> int:
        """Return the id of the view's row that was planned last; 0 if there is none."""
        ids = sa.select(sa.func.max(MATERIALIZE.c.id).label("id")).where(
            MATERIALIZE.c.project == self._project, MATERIALIZE.c.view == view
        )
        row = self._database.one(ids)
        return (row["id"] if row else None) or 0

    def materialization(self, row_id: int) -> MaterializeRow:
        """Return one materialize row.

        Raises:
            Terminal: there is none of that id.
        """
        row = self._database.one(
            sa.select(MATERIALIZE).where(MATERIALIZE.c.id == row_id, MATERIALIZE.c.project == self._project)
        )
        if row is None:
            raise Terminal(
                f"the ledger has no interval {row_id}",
                hint="it was given up, as its snapshot was rolled back or has expired: run the view's materialization again",
            )
        return materialize_row(row)

    def incarnations(self) -> list[str]:
        """Return the incarnations of the online store that this ledger wrote to, each after the one that was lost before it."""
        rows = self._database.all(sa.select(STORE).where(STORE.c.project == self._project))
        next_of = {row["follows"]: row["incarnation"] for row in rows}
        found: list[str] = []
        while (following := next_of.get(found[-1] if found else "")) is not None:
            found.append(following)
        return found

    def incarnation(self) -> str | None:
        """Return the incarnation of the online store this ledger writes to, or None before the first write."""
        return next(reversed(self.incarnations()), None)

    def adopt_incarnation(self, incarnation: str, at: datetime, *, follows: str | None = None) -> None:
        """Remember the online store before the first write to it, as the first or in place of a lost one.

        If somebody did so meanwhile, theirs stays.
        """
        values = {
            "project": self._project,
            "incarnation": incarnation,
            "follows": follows or "",
            "since": to_micros(at),
        }
        self._database.claim(STORE, values)

    def _of(self, table: sa.Table, view: str) -> sa.Select[tuple[object, ...]]:
        return sa.select(table).where(table.c.project == self._project, table.c.view == view)

    def _moved(
        self, row: MaterializeRow, values: Mapping[str, object], where: sa.ColumnElement[bool]
    ) -> MaterializeRow | None:
        """Change a materialize row and return it; None if it is not as `where` says any more."""
        changed = MATERIALIZE.update().where(MATERIALIZE.c.id == row.id, where).values(values).returning(MATERIALIZE)
        with self._database.transaction() as connection:
            now = connection.execute(changed).mappings().one_or_none()
            return None if now is None else materialize_row(now)
