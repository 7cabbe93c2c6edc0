"""The receipts of erasures in the ledger: whose rows went, in no readable form, what went with them, and how far it has come."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa

from lockstep.clock import from_micros, to_micros
from lockstep.errors import Transient
from lockstep.materialize.database import METADATA, Database, who
from lockstep.settings import Settings

ERASURE = sa.Table(
    "erasure",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.String, nullable=False),
    sa.Column("entity", sa.String, nullable=False),
    sa.Column("join_key", sa.String, nullable=False),
    sa.Column("key_sha256", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("planned_at", sa.BigInteger, nullable=False),
    sa.Column("planned_by", sa.String, nullable=False),
    sa.Column("under_way", sa.String),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("done_at", sa.BigInteger),
    sqlite_autoincrement=True,
)
_UNFINISHED = ERASURE.c.state == "planned"
sa.Index(
    "erasure_once_at_a_time",
    *[ERASURE.c.project, ERASURE.c.join_key, ERASURE.c.key_sha256],
    unique=True,
    sqlite_where=_UNFINISHED,
    postgresql_where=_UNFINISHED,
)


class ErasureState(enum.StrEnum):
    """How far an erasure has come."""

    PLANNED = "planned"
    DONE = "done"


@dataclass(frozen=True)
class TableErased:
    """What went from one table.

    Attributes:
        rows: rows of its newest snapshot.
        refs: tags and branches that were dropped, each with what it had been kept for.
        snapshots: how many snapshots expired.
        files: how many data files, manifests and manifest lists were removed.
    """

    rows: int = 0
    refs: Mapping[str, str] = field(default_factory=dict[str, str])
    snapshots: int = 0
    files: int = 0

    def __add__(self, other: "TableErased") -> "TableErased":
        refs = {**self.refs, **other.refs}
        return TableErased(self.rows + other.rows, refs, self.snapshots + other.snapshots, self.files + other.files)


@dataclass(frozen=True)
class Outcome:
    """What went.

    Attributes:
        tables: what went from each table of the lake that held the entity.
        stream_entries: rows of the served log that had not reached the lake.
        online_keys: hashes of the online store.
    """

    tables: Mapping[str, TableErased] = field(default_factory=dict[str, TableErased])
    stream_entries: int = 0
    online_keys: int = 0

    def with_table(self, table: str, erased: TableErased) -> "Outcome":
        """Return the outcome with this added to what went from a table."""
        tables = {**self.tables, table: self.tables.get(table, TableErased()) + erased}
        return Outcome(tables, self.stream_entries, self.online_keys)

    def with_online(self, stream_entries: int, online_keys: int) -> "Outcome":
        """Return the outcome with this added to what went from the online store."""
        return Outcome(self.tables, self.stream_entries + stream_entries, self.online_keys + online_keys)


@dataclass(frozen=True)
class UnderWay:
    """A commit to one table that was about to be made: whether it was, its snapshot's mark tells.

    Attributes:
        table: which one.
        mark: what the snapshot says.
        erased: what goes with it.
        files: what is to be removed after it.
    """

    table: str
    mark: str
    erased: TableErased
    files: tuple[str, ...]


@dataclass(frozen=True)
class Receipt:
    """One erasure, as the ledger has it."""

    id: int
    entity: str
    join_key: str
    key_sha256: str
    state: ErasureState
    planned_at: datetime
    planned_by: str
    under_way: UnderWay | None
    outcome: Outcome
    done_at: datetime | None


class Erasures:
    """One project's receipts.

    Args:
        database: the ledger's.
        project: whose receipts.
    """

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project

    @classmethod
    def open(cls, settings: Settings, project: str) -> "Erasures":
        """Open the ledger the settings name, and make its table when it is absent.

        Raises:
            Transient: it cannot be reached.
        """
        return cls(Database.open(settings, ERASURE), project)

    def plan(self, entity: str, join_key: str, key_sha256: str, at: datetime) -> Receipt:
        """Begin an erasure, or take up the unfinished one of the same key."""
        values = {
            "project": self._project,
            "entity": entity,
            "join_key": join_key,
            "key_sha256": key_sha256,
            "state": ErasureState.PLANNED.value,
            "planned_at": to_micros(at),
            "planned_by": who(),
            "outcome": _to_json(Outcome()),
        }
        self._database.claim(ERASURE, values)
        same = (ERASURE.c.join_key == join_key) & (ERASURE.c.key_sha256 == key_sha256)
        with self._database.transaction() as connection:
            return _receipt(connection.execute(self._mine().where(same, _UNFINISHED)).mappings().one())

    def receipts(self) -> list[Receipt]:
        """Return all receipts in the order in which they were planned."""
        return [_receipt(row) for row in self._database.all(self._mine().order_by(ERASURE.c.id))]

    def begin(self, receipt: Receipt, under_way: UnderWay) -> Receipt:
        """Note what is about to go from a table."""
        return self._change(receipt, under_way=_to_json(under_way))

    def end(self, receipt: Receipt, outcome: Outcome) -> Receipt:
        """Note what has gone by now; nothing is under way any more."""
        return self._change(receipt, under_way=None, outcome=_to_json(outcome))

    def finish(self, receipt: Receipt, at: datetime) -> Receipt:
        """Note that nothing is left of the entity."""
        return self._change(receipt, state=ErasureState.DONE.value, done_at=to_micros(at))

    def _mine(self) -> sa.Select[Any]:
        return sa.select(ERASURE).where(ERASURE.c.project == self._project)

    def _change(self, receipt: Receipt, **values: object) -> Receipt:
        """Change an unfinished receipt.

        Raises:
            Transient: another run has finished it meanwhile.
        """
        with self._database.transaction() as connection:
            same = ERASURE.c.id == receipt.id
            if not connection.execute(ERASURE.update().where(same, _UNFINISHED).values(values)).rowcount:
                raise Transient(f"erasure {receipt.id} was finished by another run", hint="erase once more to be sure")
            return _receipt(connection.execute(sa.select(ERASURE).where(same)).mappings().one())


def _receipt(row: sa.RowMapping) -> Receipt:
    return Receipt(
        id=row["id"],
        entity=row["entity"],
        join_key=row["join_key"],
        key_sha256=row["key_sha256"],
        state=ErasureState(row["state"]),
        planned_at=from_micros(row["planned_at"]),
        planned_by=row["planned_by"],
        under_way=None if row["under_way"] is None else _under_way(orjson.loads(row["under_way"])),
        outcome=_outcome(orjson.loads(row["outcome"])),
        done_at=None if row["done_at"] is None else from_micros(row["done_at"]),
    )


def _to_json(value: Outcome | UnderWay) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _outcome(document: Mapping[str, Any]) -> Outcome:
    tables = {name: TableErased(**erased) for name, erased in document["tables"].items()}
    return Outcome(tables, document["stream_entries"], document["online_keys"])


def _under_way(document: Mapping[str, Any]) -> UnderWay:
    erased = TableErased(**document["erased"])
    return UnderWay(document["table"], document["mark"], erased, tuple(document["files"]))
