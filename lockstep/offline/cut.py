"""Where history is cut: the snapshot of each table that a retrieval reads, set for a block of code."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

from lockstep.clock import require_zone
from lockstep.errors import BadInput

CUT_PROPERTY = "lockstep.cut"
"""The property of a snapshot that says, as JSON, what its rows were cut from."""


@dataclass(frozen=True)
class Cut:
    """The snapshots that retrievals read, and the last time they may know of.

    Attributes:
        snapshots: per table the id of its Iceberg snapshot (`NO_SNAPSHOT`: as before its first); every table a retrieval reads is
            named.
        known_at: no row asks for a later time; None does not limit it.
        corrected: False answers each row with what was known at its own time, as serving did. True answers every row with
            what was known at `known_at`, later corrections included.

    Raises:
        BadInput: `known_at` has no zone, or corrections are asked for without it.
    """

    snapshots: Mapping[str, int]
    known_at: datetime | None = None
    corrected: bool = False

    def __post_init__(self) -> None:
        if self.known_at is not None:
            require_zone(self.known_at, "the cut's known_at")
        elif self.corrected:
            raise BadInput("a corrected cut needs known_at", hint="say as of when corrections count")

    def to_json(self) -> str:
        """Return what `from_json` reads: the snapshots by table, and the times in ISO 8601."""
        known_at = self.known_at and self.known_at.isoformat()
        return json.dumps(
            {"snapshots": dict(sorted(self.snapshots.items())), "known_at": known_at, "corrected": self.corrected}
        )

    @classmethod
    def from_json(cls, text: str) -> "Cut":
        """Read what `to_json` wrote."""
        said = json.loads(text)
        known_at = datetime.fromisoformat(said["known_at"]) if said["known_at"] else None
        return cls(said["snapshots"], known_at, corrected=said["corrected"])

    def snapshot(self, table: str) -> int:
        """Return the snapshot of a table.

        Raises:
            BadInput: the cut names none.
        """
        if table not in self.snapshots:
            known = ", ".join(sorted(self.snapshots)) or "none"
            raise BadInput(f"the cut names no snapshot of {table!r}", hint=f"it names {known}")
        return self.snapshots[table]


_current: ContextVar[Cut | None] = ContextVar("lockstep_cut", default=None)


def current_cut() -> Cut | None:
    """Return the cut of the surrounding `reading` block; None reads every table's newest snapshot."""
    return _current.get()


@contextmanager
def reading(cut: Cut | None) -> Generator[None]:
    """Let every retrieval that is created inside the block read at `cut`, whenever its result is asked for."""
    token = _current.set(cut)
    try:
        yield
    finally:
        _current.reset(token)
