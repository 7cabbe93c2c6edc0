"""The ledger's tables and their rows: which ranges of ticks were computed, which ranges of snapshots brought online.

A table is changed with a migration note (docs/design.md) and a new golden file only.
"""

import enum
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson
import sqlalchemy as sa

from lockstep.clock import from_micros, to_micros
from lockstep.materialize.database import METADATA


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
TILES = COMPUTE.c.mode.in_([Mode.BOOTSTRAP.value, Mode.LIVE.value])
sa.Index(
    "compute_tiles_time",
    *[COMPUTE.c.project, COMPUTE.c.view, COMPUTE.c.tick_from],
    unique=True,
    sqlite_where=TILES,
    postgresql_where=TILES,
)
CORRECTS = (COMPUTE.c.mode == Mode.CORRECT.value) & (COMPUTE.c.state != State.COMMITTED.value)
sa.Index(
    "compute_corrects_once",
    *[COMPUTE.c.project, COMPUTE.c.view],
    unique=True,
    sqlite_where=CORRECTS,
    postgresql_where=CORRECTS,
)
_FOLLOWS = MATERIALIZE.c.mode == Mode.INTERVAL.value
sa.Index(
    "materialize_tiles_snapshots",
    *[MATERIALIZE.c.project, MATERIALIZE.c.view, MATERIALIZE.c.table_uuid, MATERIALIZE.c.sequence_from],
    unique=True,
    sqlite_where=_FOLLOWS,
    postgresql_where=_FOLLOWS,
)

UNFINISHED = MATERIALIZE.c.state != State.COMMITTED.value
sa.Index(
    "materialize_one_at_a_time",
    *[MATERIALIZE.c.project, MATERIALIZE.c.view, MATERIALIZE.c.table_uuid],
    unique=True,
    sqlite_where=UNFINISHED,
    postgresql_where=UNFINISHED,
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
        place: of the online store when it was last planned (`online.place.Place`); None before that.
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

    def written_at(self, place: str) -> str:
        """Return in words how the row is written, to this place: who reads it anew can tell whether it was planned anew."""
        return f"{self.scope} after {self.writes_from} ({self.writes_after_id or 'none'}) at {place}"


def as_planned(row: MaterializeRow) -> sa.ColumnElement[bool]:
    """Return the condition that a row is planned to be written like this one."""
    how = (MATERIALIZE.c.place == row.place) & (MATERIALIZE.c.scope == row.scope)
    after = (MATERIALIZE.c.writes_from == row.writes_from) & (MATERIALIZE.c.writes_after_id == row.writes_after_id)
    return how & after


def reach_values(reach: Reach) -> dict[str, object]:
    """Return the columns that say how far a row goes."""
    return {
        "table_uuid": reach.table_uuid,
        "sequence_to": reach.sequence,
        "snapshot_id": reach.snapshot_id,
        "watermark": to_micros(reach.watermark),
    }


def sources_text(sources: Mapping[str, int]) -> str:
    """Return the snapshots that are read, by table, as the ledger keeps them."""
    return orjson.dumps(dict(sources), option=orjson.OPT_SORT_KEYS).decode()


def compute_row(row: sa.RowMapping) -> ComputeRow:
    """Read a row of `COMPUTE`."""
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


def materialize_row(row: sa.RowMapping) -> MaterializeRow:
    """Read a row of `MATERIALIZE`."""
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


def correctable(tiles: Sequence[ComputeRow], alive: Container[int]) -> list[tuple[datetime, datetime]]:
    """Return the ranges of ticks, `after < T <= last`, that can be computed again: those of which no source has expired.

    Args:
        tiles: how the view's ticks were computed first, in their order.
        alive: the snapshots that the view's source still has.
    """
    found: list[tuple[datetime, datetime]] = []
    for tile in tiles:
        if not all(snapshot in alive for snapshot in tile.sources.values()):
            continue
        goes_on = bool(found) and found[-1][1] == tile.tick_from
        found[-1:] = [(found[-1][0], tile.tick_to)] if goes_on else [*found[-1:], (tile.tick_from, tile.tick_to)]
    return found
