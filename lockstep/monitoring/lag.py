"""How far each view is behind, by ledger and lake: ticks not computed, snapshots not online, work not finished.

The online store is not asked: what it has lost since, `lockstep doctor` finds and the next run writes again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lockstep.clock import from_micros
from lockstep.lake import Lake
from lockstep.materialize.ledger import Ledger
from lockstep.materialize.ledger_rows import MaterializeRow, State
from lockstep.settings import Settings
from lockstep.views import StoredView, UseCase
from lockstep.views.ticks import tick_number


@dataclass(frozen=True)
class Lag:
    """One view.

    Attributes:
        view: its name.
        owner: who answers for it.
        objective: how old its watermark may be.
        hard: whether a model may not use it past the objective.
        computed: the last tick that its table has; None before the first.
        online: its watermark: the last tick that is online; None before the first.
        age: how long ago that was.
        ticks: how many ticks are due and not in its table; a tick is due once it is `compute_lag` old. None before the first.
        snapshots: how many snapshots of its table are newer than what is online.
        unfinished: what was planned and is not finished, with since when.
        rolled_back: whether what is online is not of the table's own history: the next run takes it back.
    """

    view: str
    owner: str
    objective: timedelta
    hard: bool
    computed: datetime | None
    online: datetime | None
    age: timedelta | None
    ticks: int | None
    snapshots: int
    unfinished: tuple[str, ...]
    rolled_back: bool

    @property
    def is_late(self) -> bool:
        """Whether the watermark is older than the objective, or nothing is online."""
        return self.age is None or self.age > self.objective

    def __str__(self) -> str:
        """Say it in a line, what is wrong first."""
        what = "never online" if self.age is None else f"{self.age} behind, {self.objective} promised"
        ticks = "never computed" if self.ticks is None else f"{self.ticks} ticks not computed"
        parts = [what, ticks, f"{self.snapshots} snapshots not online", *self.unfinished, f"owner {self.owner}"]
        if self.rolled_back:
            parts.insert(1, "its table was rolled back")
        return f"{'LATE' if self.is_late else 'fresh'} {self.view}: {'; '.join(parts)}"


def measure_lag(settings: Settings, use_case: UseCase, lake: Lake, ledger: Ledger) -> list[Lag]:
    """Return how far each stored view is behind, in the order in which they are declared; nothing is changed."""
    return [_of(settings, view, lake, ledger) for view in use_case.views]


def _of(settings: Settings, view: StoredView, lake: Lake, ledger: Ledger) -> Lag:
    now = settings.clock.now()
    computes = ledger.computes(view.name)
    rows = ledger.materializations(view.name, lake.table_uuid(view.table)) if lake.exists(view.table) else []
    lineage = lake.lineage(view.table) if lake.exists(view.table) else []
    last = max((snapshot.tick for snapshot in lineage if snapshot.tick is not None), default=None)
    computed = None if last is None else from_micros(last)
    online = next((row for row in reversed(rows) if row.state is State.COMMITTED), None)
    due = tick_number(view, now - view.compute_lag)
    return Lag(
        view=view.name,
        owner=view.owner,
        objective=view.freshness.objective,
        hard=view.freshness.hard,
        computed=computed,
        online=online.watermark if online else None,
        age=now - online.watermark if online else None,
        ticks=None if computed is None else max(0, due - tick_number(view, computed)),
        snapshots=sum(snapshot.sequence > (online.sequence_to if online else 0) for snapshot in lineage),
        unfinished=(
            *(
                f"ticks up to {row.tick_to.isoformat()} planned since {row.planned_at.isoformat()}"
                for row in computes
                if row.state is not State.COMMITTED
            ),
            *_intervals(rows),
        ),
        rolled_back=online is not None and online.snapshot_id not in {snapshot.id for snapshot in lineage},
    )


def _intervals(rows: Sequence[MaterializeRow]) -> list[str]:
    return [
        f"interval {row.id} {row.state.value} since {row.planned_at.isoformat()}"
        for row in rows
        if row.state is not State.COMMITTED
    ]
