"""A pipeline of the laboratory's own: lake, ledger, registry, store and clock in a scratch folder, filled tick by tick.

The rows of the views are those of the state that is examined; they come into the lake, and from there online, the real way.
"""

import shutil
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lockstep.clock import EPOCH, MICROSECOND, to_micros
from lockstep.lake import Lake
from lockstep.lake.snapshots import COMPUTE_ID, DEFINITION, TICK
from lockstep.local.redis import LocalRedis
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.offline.registry import apply_definitions
from lockstep.online.store import Store, connect
from lockstep.settings import Settings
from lockstep.views.declare import EVENT_TIMESTAMP, StoredView
from lockstep.views.use_case import UseCase

_BUDGET = timedelta(seconds=20)  # it shows what is right, not how fast


@dataclass
class World:
    """Views that are computed and brought online as time goes by.

    Args:
        settings: of the scratch folder.
        use_case: the definitions.
        views: those that are read.
        rows: the rows of each, by event time.
    """

    settings: Settings
    use_case: UseCase
    views: tuple[StoredView, ...]
    rows: Mapping[str, pa.Table]
    lake: Lake = field(init=False)
    ledger: Ledger = field(init=False)
    store: Store = field(init=False)
    _reached: dict[str, datetime] = field(default_factory=dict[str, datetime], init=False)

    def __post_init__(self) -> None:
        """Make what is empty."""
        project = self.use_case.project
        self.lake = Lake.open(self.settings, project)
        self.ledger = Ledger.open(self.settings, project)
        self.store = connect(self.settings)
        apply_definitions(self.settings, self.use_case)
        for view in self.views:
            self.lake.ensure_table(view.table, view.schema)
        self._materializers = {
            view.name: Materializer(self.settings, self.lake, self.ledger, self.store, project, view)
            for view in self.views
        }
        self._times = {name: rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy() for name, rows in self.rows.items()}

    @property
    def every(self) -> timedelta:
        """How often something is computed."""
        return min((view.every for view in self.views), default=timedelta(hours=1))

    @property
    def lags(self) -> timedelta:
        """From a tick until all views promise to have it online."""
        return max((view.compute_lag + view.visible_lag for view in self.views), default=timedelta(0))

    def advance(self, tick: datetime) -> None:
        """Compute what is due at a tick, and bring it online; the first time, all there is up to it."""
        for view in self.views:
            due = tick - (tick - EPOCH) % view.every
            if (reached := self._reached.get(view.name)) == due:
                continue
            self.settings.clock.advance_to(tick + view.compute_lag)
            self._append(view, reached, due)
            self.settings.clock.advance_to(tick + view.compute_lag + view.visible_lag)
            self.bring_online(view.name, tick)
            self._reached[view.name] = due

    def bring_online(self, view: str, tick: datetime) -> None:
        """Bring online what was computed at a tick."""
        self._materializers[view].run()

    def _append(self, view: StoredView, after: datetime | None, tick: datetime) -> None:
        times = self._times[view.name]
        first = 0 if after is None else int(np.searchsorted(times, to_micros(after), side="right"))
        last = int(np.searchsorted(times, to_micros(tick), side="right"))
        said = {TICK: str(to_micros(tick)), DEFINITION: view.definition_hash, COMPUTE_ID: str(to_micros(tick))}
        self.lake.append(view.table, self.rows[view.name].slice(first, last - first), said)

    def lake_of(self, name: str) -> tuple[Settings, Lake]:
        """Return a copy of the lake, which shares its files: what is written to it later is not in the lake."""
        copy = self.settings.home / f"catalog-{name}.db"
        _copied(self.settings.catalog_uri, copy)
        settings = self.settings.model_copy(update={"catalog_uri": f"sqlite:///{copy}"})
        return settings, Lake.open(settings, self.use_case.project)

    def ledger_of(self, name: str, lags: Mapping[str, timedelta]) -> Ledger:
        """Return a copy of the ledger in which the intervals of some views were written so much later."""
        if not lags:
            return self.ledger
        copy = self.settings.home / f"ledger-{name}.db"
        _copied(self.settings.ledger_url, copy)
        with closing(sqlite3.connect(copy)) as connection, connection:
            for view, lag in lags.items():
                connection.execute(
                    "UPDATE materialize SET planned_at = planned_at + ?, committed_at = committed_at + ? WHERE view = ?",
                    (lag // MICROSECOND, lag // MICROSECOND, view),
                )
        return Ledger.open(self.settings.model_copy(update={"ledger_url": f"sqlite:///{copy}"}), self.use_case.project)


@contextmanager
def scratch_settings(folder: Path, given: Settings) -> Generator[Settings]:
    """Give settings of an empty folder with a store and a clock of its own; the folder is removed in the end.

    Args:
        folder: where; what an earlier run left there is removed.
        given: the use case and the limits.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # All of them are said: what the environment or a file says of others' stores must not be taken for ours.
    plain: dict[str, Any] = {name: of.default for name, of in Settings.model_fields.items()}
    own: dict[str, Any] = {
        "home": folder,
        "use_case": given.use_case,
        "clock_file": folder / "clock",
        "request_budget": _BUDGET,
    }
    try:
        with LocalRedis(folder) as redis:
            yield redis.settings(Settings(**plain | own).resolved())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copied(url: str, copy: Path) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
