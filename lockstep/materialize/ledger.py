"""The ledger: what was computed and what was brought online, and what comes next.

Two kinds of row. A *compute* row is a range of ticks of one view; a *materialize* row is a range of its table's snapshots.
Each starts where the last of its kind ended, which a unique index holds against two planners at once: the second one is
handed the first one's row. The index covers the modes that tile. A *repair* does not: it writes again what is committed, where
the online store has lost it, or a table was rolled back. Nor does *correct*: it computes again ticks that a tile has computed.
Of either a view has one unfinished row at most.
"""

import enum
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from lockstep.clock import MICROSECOND, from_micros, to_micros
from lockstep.errors import Terminal, Transient
from lockstep.materialize.database import METADATA, Database, who
from lockstep.settings import Settings
from lockstep.sqlite import OpenOnce


class Mode(enum.StrEnum):
    """Why a row was planned."""

    BOOTSTRAP = "bootstrap"
    LIVE = "live"
    CORRECT = "correct"
    INTERVAL = "interval"
    REPAIR = "repair"


class State(enum.StrEnum):
    """How far a row has come."""

    PLANNED = "planned"
    WRITING = "writing"
    VERIFIED = "verified"
    COMMITTED = "committed"


class Scope(enum.StrEnum):
    """What an interval brings online, and how what it takes away is found.

    *Added*: the rows of files that its snapshots added; they took none away. *Changed*: the keys of files that came or went are
    looked up as they are afterwards. *Whole*: the newest row of every key, and the store is looked through for rows that the
    table does not have: nothing less is known, because history has expired or there is none.
    """

    ADDED = "added"
    CHANGED = "changed"
    WHOLE = "whole"


COMPUTE = sa.Table(
    "compute",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.String, nullable=False),
    sa.Column("view", sa.String, nullable=False),
    sa.Column("mode", sa.String, nullable=False),
    sa.Column("tick_from", sa.BigInteger, nullable=False),
    sa.Column("tick_to", sa.BigInteger, nullable=False),
    sa.Column("sources", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("planned_at", sa.BigInteger, nullable=False),
    sa.Column("planned_by", sa.String, nullable=False),
    sa.Column("snapshot_id", sa.BigInteger),
    sa.Column("rows", sa.BigInteger),
    sa.Column("committed_at", sa.BigInteger),
    sa.CheckConstraint("tick_to > tick_from", name="compute_goes_forward"),
    sqlite_autoincrement=True,
)
MATERIALIZE = sa.Table(
    "materialize",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.String, nullable=False),
    sa.Column("view", sa.String, nullable=False),
    sa.Column("table_uuid", sa.String, nullable=False),
    sa.Column("mode", sa.String, nullable=False),
    sa.Column("sequence_from", sa.BigInteger, nullable=False),
    sa.Column("sequence_to", sa.BigInteger, nullable=False),
    sa.Column("snapshot_id", sa.BigInteger, nullable=False),
    sa.Column("watermark", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("planned_at", sa.BigInteger, nullable=False),
    sa.Column("planned_by", sa.String, nullable=False),
    sa.Column("writes_from", sa.BigInteger, nullable=False),
    sa.Column("writes_after_id", sa.BigInteger),
    sa.Column("scope", sa.String),
    sa.Column("place", sa.String),
    sa.Column("rows_accepted", sa.BigInteger),
    sa.Column("rows_rejected", sa.BigInteger),
    sa.Column("digest", sa.String),
    sa.Column("committed_at", sa.BigInteger),
    sa.CheckConstraint("sequence_to > sequence_from", name="materialize_goes_forward"),
    sqlite_autoincrement=True,
)
STORE = sa.Table(
    "store",
    METADATA,
    sa.Column("project", sa.String, primary_key=True),
    sa.Column("incarnation", sa.String, primary_key=True),
    sa.Column("follows", sa.String, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("project", "follows", name="store_has_one_successor"),
)
_TILES = COMPUTE.c.mode.in_([Mode.BOOTSTRAP.value, Mode.LIVE.value])
sa.Index(
    "compute_tiles_time",
    *[COMPUTE.c.project, COMPUTE.c.view, COMPUTE.c.tick_from],
    unique=True,
    sqlite_where=_TILES,
    postgresql_where=_TILES,
)
_CORRECTS = (COMPUTE.c.mode == Mode.CORRECT.value) & (COMPUTE.c.state != State.COMMITTED.value)
sa.Index(
    "compute_corrects_once",
    *[COMPUTE.c.project, COMPUTE.c.view],
    unique=True,
    sqlite_where=_CORRECTS,
    postgresql_where=_CORRECTS,
)
_FOLLOWS = MATERIALIZE.c.mode == Mode.INTERVAL.value
sa.Index(
    "materialize_tiles_snapshots",
    *[MATERIALIZE.c.project, MATERIALIZE.c.view, MATERIALIZE.c.table_uuid, MATERIALIZE.c.sequence_from],
    unique=True,
    sqlite_where=_FOLLOWS,
    postgresql_where=_FOLLOWS,
)

_UNFINISHED = MATERIALIZE.c.state != State.COMMITTED.value
sa.Index(
    "materialize_one_at_a_time",
    *[MATERIALIZE.c.project, MATERIALIZE.c.view, MATERIALIZE.c.table_uuid],
    unique=True,
    sqlite_where=_UNFINISHED,
    postgresql_where=_UNFINISHED,
)


@dataclass(frozen=True)
class ComputeRow:
    """The ticks `tick_from < T <= tick_to` of a view (times), computed from the snapshots named in `sources`."""

    id: int
    view: str
    mode: Mode
    tick_from: datetime
    tick_to: datetime
    sources: Mapping[str, int]
    state: State
    planned_at: datetime
    snapshot_id: int | None
    rows: int | None


@dataclass(frozen=True)
class Reach:
    """How far an interval goes: a snapshot of a view's table, and the last tick up to it.

    Attributes:
        table_uuid: which table; another one may have had its name before.
        sequence: the snapshot's sequence number.
        snapshot_id: its id.
        watermark: the tick.
    """

    table_uuid: str
    sequence: int
    snapshot_id: int
    watermark: datetime


@dataclass(frozen=True)
class MaterializeRow:
    """The snapshots `sequence_from < s <= sequence_to` of a view's table.

    Attributes:
        table_uuid: which table; another one may have had its name before.
        snapshot_id: the last of the snapshots.
        watermark: the last tick in them.
        writes_from: what is written are the rows of the snapshots `writes_from < s <= sequence_to`: where the online store lost
            some of what came before the interval, that too.
        writes_after_id: the id of the snapshot `writes_from`; None before it was planned to be written, or if there is none.
        scope: what of these snapshots is written; None before that.
        place: of the online store when it was last planned (`online.store.Place`); None before that.
    """

    id: int
    view: str
    table_uuid: str
    mode: Mode
    sequence_from: int
    sequence_to: int
    snapshot_id: int
    watermark: datetime
    state: State
    planned_at: datetime
    writes_from: int
    writes_after_id: int | None
    scope: Scope | None
    place: str | None
    rows_accepted: int | None
    rows_rejected: int | None
    committed_at: datetime | None


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
            Transient: somebody claimed some of these ticks meanwhile, from another start; or the ledger is busy.
        """
        values = self._range(view, mode, tick_from, tick_to, sources, planned_at)
        tiles = self._of(COMPUTE, view).where(_TILES)
        with self._planning(COMPUTE, view) as connection:
            same = tiles.where(COMPUTE.c.tick_from == values["tick_from"])
            if (theirs := connection.execute(same).mappings().one_or_none()) is not None:
                return _compute_row(theirs)
            over = tiles.where(COMPUTE.c.tick_from < values["tick_to"], COMPUTE.c.tick_to > values["tick_from"])
            if (theirs := connection.execute(over.limit(1)).mappings().one_or_none()) is not None:
                other = _compute_row(theirs)
                raise Transient(
                    f"{view}: another run has claimed the ticks after {other.tick_from.isoformat()} up to "
                    f"{other.tick_to.isoformat()} meanwhile ({other.mode.value})",
                    hint="run the step again: it goes on from there",
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
            unfinished = connection.execute(self._of(COMPUTE, view).where(_CORRECTS)).mappings().one_or_none()
            if unfinished is not None:
                return _compute_row(unfinished)
            newest = max(_compute_row(row).planned_at for row in rows)
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
            "sources": _sources_text(sources),
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
        return _compute_row(connection.execute(COMPUTE.insert().values(values).returning(COMPUTE)).mappings().one())

    def move_sources(self, table: str, alive: Collection[int], to: int, *, view: str | None = None) -> int:
        """Let planned ranges of ticks be computed from another snapshot of a source table, where theirs is not alive.

        Args:
            table: the source.
            alive: its snapshots.
            to: the one to read instead.
            view: of which view, and of its tiles alone: a correction has to read what was read first. None is all ranges of all
                views.

        Returns:
            How many there were.
        """
        planned = sa.select(COMPUTE).where(COMPUTE.c.project == self._project, COMPUTE.c.state == State.PLANNED.value)
        if view is not None:
            planned = planned.where(COMPUTE.c.view == view, _TILES)
        moved = 0
        with self._database.transaction() as connection:
            for row in connection.execute(planned).mappings().all():
                sources = orjson.loads(row["sources"])
                if table in sources and sources[table] not in alive:
                    same = (COMPUTE.c.id == row["id"]) & (COMPUTE.c.state == State.PLANNED.value)
                    values = {"sources": _sources_text({**sources, table: to})}
                    moved += connection.execute(COMPUTE.update().where(same).values(values)).rowcount
        return moved

    def give_up(self, row: ComputeRow) -> None:
        """Forget a correction that cannot be computed; nothing of it is in the table."""
        with self._database.transaction() as connection:
            connection.execute(COMPUTE.delete().where(COMPUTE.c.id == row.id, _CORRECTS))

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
        return [_compute_row(r) for r in self._database.all(query)]

    def plan_materialize(
        self, view: str, mode: Mode, sequence_from: int, reach: Reach, planned_at: datetime, *, newest: int
    ) -> MaterializeRow | None:
        """Claim the snapshots after one, up to another; or, as a repair, plan to write them again.

        Args:
            view: which view.
            mode: *interval* or *repair*.
            sequence_from: the sequence number of the snapshot before the first.
            reach: the last one.
            planned_at: now.
            newest: the greatest id of the view's rows that the caller has seen.

        Returns:
            The row; None if somebody planned another row of the view meanwhile. So rows of greater numbers are of later states of
            the table, and one is under way at a time.

        Raises:
            Transient: the ledger is busy.
            Terminal: a constraint refuses the row.
        """
        values = {
            "project": self._project,
            "view": view,
            "mode": mode.value,
            "sequence_from": sequence_from,
            "writes_from": sequence_from,
            "state": State.PLANNED.value,
            "planned_at": to_micros(planned_at),
            "planned_by": who(),
            **_reach_values(reach),
        }
        ids = sa.select(sa.func.max(MATERIALIZE.c.id)).where(
            MATERIALIZE.c.project == self._project, MATERIALIZE.c.view == view
        )
        with self._planning(MATERIALIZE, view) as connection:
            if (connection.execute(ids).scalar_one() or 0) > newest:
                return None
            planned = MATERIALIZE.insert().values(values).returning(MATERIALIZE)
            return _materialize_row(connection.execute(planned).mappings().one())

    def extend_materialize(self, row: MaterializeRow, reach: Reach) -> MaterializeRow | None:
        """Make an unfinished row reach a later snapshot; return it, or None if somebody changed it meanwhile."""
        same = _UNFINISHED & (MATERIALIZE.c.sequence_to == row.sequence_to)
        return self.materialization(row.id) if self._move(row, _reach_values(reach), same) else None

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
        unchanged = (MATERIALIZE.c.writes_from == row.writes_from) & (MATERIALIZE.c.sequence_to == row.sequence_to)
        return self.materialization(row.id) if self._move(row, values, _UNFINISHED & unchanged) else None

    def verify(self, row: MaterializeRow, accepted: int, rejected: int, digest: str) -> bool:
        """Note that what was written was read back; return whether the row is still planned for the same place."""
        values = {
            "state": State.VERIFIED.value,
            "rows_accepted": accepted,
            "rows_rejected": rejected,
            "digest": digest,
        }
        return self._move(row, values, _UNFINISHED & _as_planned(row))

    def commit_materialize(self, row: MaterializeRow, at: datetime) -> bool:
        """Note that an interval is online; return whether it was still the verified one, planned for the same place."""
        values = {"state": State.COMMITTED.value, "committed_at": to_micros(at)}
        return self._move(row, values, (MATERIALIZE.c.state == State.VERIFIED.value) & _as_planned(row))

    def materializations(self, view: str, table_uuid: str | None = None) -> list[MaterializeRow]:
        """Return the view's materialize rows in the order in which they were planned: all, or those of one table of its name."""
        query = self._of(MATERIALIZE, view).order_by(MATERIALIZE.c.id)
        if table_uuid is not None:
            query = query.where(MATERIALIZE.c.table_uuid == table_uuid)
        return [_materialize_row(r) for r in self._database.all(query)]

    def materialization(self, row_id: int) -> MaterializeRow:
        """Return one materialize row.

        Raises:
            Terminal: there is none of that id.
        """
        row = self._database.one(
            sa.select(MATERIALIZE).where(MATERIALIZE.c.id == row_id, MATERIALIZE.c.project == self._project)
        )
        if row is None:
            raise Terminal(f"the ledger has no interval {row_id}", hint="plan the materialization again")
        return _materialize_row(row)

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

    def _move(self, row: MaterializeRow, values: Mapping[str, object], where: sa.ColumnElement[bool]) -> bool:
        """Change a materialize row if it is still as `where` says; return whether it was."""
        with self._database.transaction() as connection:
            same = MATERIALIZE.c.id == row.id
            return connection.execute(MATERIALIZE.update().where(same, where).values(values)).rowcount > 0


def _as_planned(row: MaterializeRow) -> sa.ColumnElement[bool]:
    return (MATERIALIZE.c.place == row.place) & (MATERIALIZE.c.scope == row.scope)


def _reach_values(reach: Reach) -> dict[str, object]:
    return {
        "table_uuid": reach.table_uuid,
        "sequence_to": reach.sequence,
        "snapshot_id": reach.snapshot_id,
        "watermark": to_micros(reach.watermark),
    }


def _sources_text(sources: Mapping[str, int]) -> str:
    return orjson.dumps(dict(sources), option=orjson.OPT_SORT_KEYS).decode()


def _compute_row(row: sa.RowMapping) -> ComputeRow:
    return ComputeRow(
        id=row["id"],
        view=row["view"],
        mode=Mode(row["mode"]),
        tick_from=from_micros(row["tick_from"]),
        tick_to=from_micros(row["tick_to"]),
        sources=orjson.loads(row["sources"]),
        state=State(row["state"]),
        planned_at=from_micros(row["planned_at"]),
        snapshot_id=row["snapshot_id"],
        rows=row["rows"],
    )


def _materialize_row(row: sa.RowMapping) -> MaterializeRow:
    return MaterializeRow(
        id=row["id"],
        view=row["view"],
        table_uuid=row["table_uuid"],
        mode=Mode(row["mode"]),
        sequence_from=row["sequence_from"],
        sequence_to=row["sequence_to"],
        snapshot_id=row["snapshot_id"],
        watermark=from_micros(row["watermark"]),
        state=State(row["state"]),
        planned_at=from_micros(row["planned_at"]),
        writes_from=row["writes_from"],
        writes_after_id=row["writes_after_id"],
        scope=None if row["scope"] is None else Scope(row["scope"]),
        place=row["place"],
        rows_accepted=row["rows_accepted"],
        rows_rejected=row["rows_rejected"],
        committed_at=None if row["committed_at"] is None else from_micros(row["committed_at"]),
    )
