"""The ledger: what was computed and what was brought online, and what comes next.

Two kinds of row. A *compute* row is a range of ticks of one view; a *materialize* row is a range of its table's snapshots.
Each starts where the last of its kind ended, which a unique index holds against two planners at once: the second one is
handed the first one's row. The index covers the modes that tile. A *repair* does not: it writes again what is committed, where
the online store has lost it. Nor does *correct*: it computes again ticks that a tile has computed, one unfinished row a view.
"""

import enum
from collections.abc import Generator, Mapping
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
    sa.Column("mode", sa.String, nullable=False),
    sa.Column("sequence_from", sa.BigInteger, nullable=False),
    sa.Column("sequence_to", sa.BigInteger, nullable=False),
    sa.Column("writes_from", sa.BigInteger, nullable=False),
    sa.Column("snapshot_id", sa.BigInteger, nullable=False),
    sa.Column("watermark", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("planned_at", sa.BigInteger, nullable=False),
    sa.Column("planned_by", sa.String, nullable=False),
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
    *[MATERIALIZE.c.project, MATERIALIZE.c.view, MATERIALIZE.c.sequence_from],
    unique=True,
    sqlite_where=_FOLLOWS,
    postgresql_where=_FOLLOWS,
)

_REPAIRS = (MATERIALIZE.c.mode == Mode.REPAIR.value) & (MATERIALIZE.c.state != State.COMMITTED.value)
sa.Index(
    "materialize_repairs_once",
    *[MATERIALIZE.c.project, MATERIALIZE.c.view],
    unique=True,
    sqlite_where=_REPAIRS,
    postgresql_where=_REPAIRS,
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
class MaterializeRow:
    """The snapshots `sequence_from < s <= sequence_to` of a view's table.

    Attributes:
        writes_from: what is written are the rows of the snapshots `writes_from < s <= sequence_to`: where the online store lost
            some of what came before the interval, that too.
        watermark: the last tick in them.
        place: of the online store when it was last planned (`online.store.Place`); None before that.
    """

    id: int
    view: str
    mode: Mode
    sequence_from: int
    sequence_to: int
    writes_from: int
    snapshot_id: int
    watermark: datetime
    state: State
    planned_at: datetime
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
        with self._planning(view) as connection:
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
        with self._planning(view) as connection:
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
            "sources": orjson.dumps(dict(sources), option=orjson.OPT_SORT_KEYS).decode(),
            "state": State.PLANNED.value,
            "planned_at": to_micros(planned_at),
            "planned_by": who(),
        }

    @contextmanager
    def _planning(self, view: str) -> Generator[sa.Connection]:
        """Give a transaction in which nobody else plans ticks of the view: no index can tell whether two ranges overlap."""
        try:
            with self._database.alone(f"lockstep compute {self._project} {view}") as connection:
                yield connection
        except IntegrityError as refused:
            raise Terminal(f"the ledger refused a row of {COMPUTE.name}: {refused.orig}") from refused

    @staticmethod
    def _inserted(connection: sa.Connection, values: Mapping[str, object]) -> ComputeRow:
        return _compute_row(connection.execute(COMPUTE.insert().values(values).returning(COMPUTE)).mappings().one())

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
        self,
        view: str,
        sequence_from: int,
        sequence_to: int,
        snapshot_id: int,
        watermark: datetime,
        planned_at: datetime,
    ) -> MaterializeRow:
        """Claim a range of snapshots; if somebody claimed one from the same start, return theirs."""
        values = self._interval(view, Mode.INTERVAL, sequence_from, sequence_to, snapshot_id, watermark, planned_at)
        self._database.claim(MATERIALIZE, values)
        same = (MATERIALIZE.c.sequence_from == sequence_from) & _FOLLOWS
        row = self._database.one(self._of(MATERIALIZE, view).where(same))
        if row is None:
            raise Terminal(f"the ledger did not keep the materialize row of {view} from {sequence_from}")
        return _materialize_row(row)

    def plan_repair(
        self, last: MaterializeRow, lost_after: int, planned_at: datetime, *, newest: int
    ) -> MaterializeRow | None:
        """Plan to write again, up to where `last` reached, what the snapshots after `lost_after` brought.

        An unfinished repair of the view is taken up, and made to reach as far.

        Args:
            last: the committed row that reaches furthest.
            lost_after: up to this snapshot the store has everything.
            planned_at: now.
            newest: the greatest id of the view's rows that the caller has seen.

        Returns:
            The row; None if another row was planned meanwhile.
        """
        reach = {
            "sequence_to": last.sequence_to,
            "snapshot_id": last.snapshot_id,
            "watermark": to_micros(last.watermark),
        }
        unfinished = (MATERIALIZE.c.project == self._project) & (MATERIALIZE.c.view == last.view) & _REPAIRS
        with self._database.transaction() as connection:
            ids = sa.select(sa.func.max(MATERIALIZE.c.id)).where(
                MATERIALIZE.c.project == self._project, MATERIALIZE.c.view == last.view
            )
            if connection.execute(ids).scalar_one() > newest:
                return None
            connection.execute(
                MATERIALIZE.update().where(unfinished, MATERIALIZE.c.sequence_to < last.sequence_to).values(reach)
            )
        values = self._interval(
            last.view, Mode.REPAIR, lost_after, last.sequence_to, last.snapshot_id, last.watermark, planned_at
        )
        self._database.claim(MATERIALIZE, values)
        row = self._database.one(sa.select(MATERIALIZE).where(unfinished))
        return None if row is None else _materialize_row(row)

    def extend_materialize(
        self, row: MaterializeRow, sequence_to: int, snapshot_id: int, watermark: datetime
    ) -> MaterializeRow | None:
        """Make an unfinished row reach a later snapshot; return it, or None if somebody changed it meanwhile."""
        values = {"sequence_to": sequence_to, "snapshot_id": snapshot_id, "watermark": to_micros(watermark)}
        same = (MATERIALIZE.c.state != State.COMMITTED.value) & (MATERIALIZE.c.sequence_to == row.sequence_to)
        return self.materialization(row.id) if self._move(row, values, same) else None

    def start_writing(self, row: MaterializeRow, place: str, writes_from: int) -> bool:
        """Note that chunks are about to be written, where, and from which snapshot on at the latest.

        Returns:
            Whether it is still to be written: not if somebody has committed it meanwhile.
        """
        earliest = sa.case((MATERIALIZE.c.writes_from < writes_from, MATERIALIZE.c.writes_from), else_=writes_from)
        values = {"state": State.WRITING.value, "place": place, "writes_from": earliest}
        return self._move(row, values, MATERIALIZE.c.state != State.COMMITTED.value)

    def verify(self, row: MaterializeRow, accepted: int, rejected: int, digest: str) -> bool:
        """Note that what was written was read back; return whether the row is still planned for the same place."""
        values = {
            "state": State.VERIFIED.value,
            "rows_accepted": accepted,
            "rows_rejected": rejected,
            "digest": digest,
        }
        return self._move(row, values, (MATERIALIZE.c.state != State.COMMITTED.value) & _at(row))

    def commit_materialize(self, row: MaterializeRow, at: datetime) -> bool:
        """Note that an interval is online; return whether it was still the verified one, planned for the same place."""
        values = {"state": State.COMMITTED.value, "committed_at": to_micros(at)}
        return self._move(row, values, (MATERIALIZE.c.state == State.VERIFIED.value) & _at(row))

    def materializations(self, view: str) -> list[MaterializeRow]:
        """Return the view's materialize rows in the order in which they were planned."""
        query = self._of(MATERIALIZE, view).order_by(MATERIALIZE.c.id)
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

    def _interval(
        self,
        view: str,
        mode: Mode,
        sequence_from: int,
        sequence_to: int,
        snapshot_id: int,
        watermark: datetime,
        planned_at: datetime,
    ) -> dict[str, object]:
        return {
            "project": self._project,
            "view": view,
            "mode": mode.value,
            "sequence_from": sequence_from,
            "sequence_to": sequence_to,
            "writes_from": sequence_from,
            "snapshot_id": snapshot_id,
            "watermark": to_micros(watermark),
            "state": State.PLANNED.value,
            "planned_at": to_micros(planned_at),
            "planned_by": who(),
        }

    def _of(self, table: sa.Table, view: str) -> sa.Select[tuple[object, ...]]:
        return sa.select(table).where(table.c.project == self._project, table.c.view == view)

    def _move(self, row: MaterializeRow, values: Mapping[str, object], where: sa.ColumnElement[bool]) -> bool:
        """Change a materialize row if it is still as `where` says; return whether it was."""
        with self._database.transaction() as connection:
            same = MATERIALIZE.c.id == row.id
            return connection.execute(MATERIALIZE.update().where(same, where).values(values)).rowcount > 0


def _at(row: MaterializeRow) -> sa.ColumnElement[bool]:
    return MATERIALIZE.c.place == row.place


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
        mode=Mode(row["mode"]),
        sequence_from=row["sequence_from"],
        sequence_to=row["sequence_to"],
        writes_from=row["writes_from"],
        snapshot_id=row["snapshot_id"],
        watermark=from_micros(row["watermark"]),
        state=State(row["state"]),
        planned_at=from_micros(row["planned_at"]),
        place=row["place"],
        rows_accepted=row["rows_accepted"],
        rows_rejected=row["rows_rejected"],
        committed_at=None if row["committed_at"] is None else from_micros(row["committed_at"]),
    )
