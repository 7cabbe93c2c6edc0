"""What the laboratory works on: the champion of a finished state, and the days held out of its training. It is only read."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lockstep.contract import FeatureContract
from lockstep.errors import BadInput
from lockstep.lake import Lake
from lockstep.lake.engine import TimeRange, connect, quote
from lockstep.serving.features import REQUEST_TIME_US
from lockstep.settings import Settings
from lockstep.training.evaluation.scored import Scored
from lockstep.training.protocol import TEST
from lockstep.training.registry import CHAMPION, Registered, find_model
from lockstep.training.span import Span
from lockstep.training.spine import entity_rows, rows_of
from lockstep.views.declare import DAY, EVENT_TIMESTAMP, StoredView
from lockstep.views.use_case import UseCase

_HINT = "run `lockstep demo` in the same LOCKSTEP_HOME first: the laboratory works on what it leaves"


@dataclass(frozen=True)
class Subject:
    """A model, and the requests that it is asked again.

    Attributes:
        settings: of the state it was found in; only read.
        use_case: its definitions.
        model: the version.
        rows: the entity rows held out, by time.
        start: the first of their days.
        end: the end of the last one.
    """

    settings: Settings
    use_case: UseCase
    model: Registered
    rows: pa.Table
    start: datetime
    end: datetime

    @classmethod
    def of(cls, settings: Settings, use_case: UseCase, scratch: Settings, days: int) -> "Subject":
        """Find the champion, and its last held-out days.

        Args:
            settings: of the state.
            use_case: its definitions.
            scratch: of a folder where the engine may spill.
            days: how many days, at most.

        Raises:
            BadInput: there is no such state, or no champion in it.
        """
        model = champion_of(settings, use_case)
        cut, recipe = model.contract.cut, use_case.model
        span = Span.of(recipe, cut.known_at)
        lake = Lake.open(settings, use_case.project)
        rows, _ = entity_rows(scratch, lake, model.contract, recipe, span, cut.snapshots, cut.known_at)
        start = max(span.test_start, span.end - days * DAY)
        held_out = rows_of(rows, TEST)
        times = held_out[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
        first = int(np.searchsorted(times, int(start.timestamp()) * 1_000_000))
        return cls(settings, use_case, model, held_out.slice(first).combine_chunks(), start, span.end)

    @property
    def contract(self) -> FeatureContract:
        """The model's."""
        return self.model.contract

    @property
    def views(self) -> tuple[StoredView, ...]:
        """The stored views that it reads."""
        return tuple(self.use_case.view(view.name) for view in self.contract.views)

    @property
    def times_us(self) -> NDArray[np.int64]:
        """Each row's time in microseconds, ascending."""
        return self.rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()

    @property
    def labels(self) -> NDArray[np.int64]:
        """Each row's label."""
        return self.rows[self.use_case.model.label].cast(pa.int64()).to_numpy()

    def scored(self, scores: NDArray[np.float64], rows: NDArray[np.int64]) -> Scored:
        """Return some of the rows with their scores, to be judged as the model was.

        Raises:
            BadInput: all of them have one label.
        """
        recipe = self.use_case.model
        taken = self.rows.take(pa.array(rows))
        return Scored(
            times_us=taken[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy(),
            labels=taken[recipe.label].cast(pa.int64()).to_numpy(),
            scores=scores[rows],
            entity=taken[recipe.protocol.entity].to_numpy(),
        )

    def requests(self) -> list[dict[str, Any]]:
        """Return each row as it is asked: join keys and inputs, without the time."""
        contract = self.contract
        names = [c.name for c in (*contract.join_keys, *contract.request_inputs) if c.name != REQUEST_TIME_US]
        return self.rows.select(names).to_pylist() if names else [{} for _ in range(self.rows.num_rows)]


def champion_of(settings: Settings, use_case: UseCase) -> Registered:
    """Return the champion of a finished state.

    Raises:
        BadInput: there is no such state, or no champion in it.
    """
    if not Path(settings.tracking_url.removeprefix("sqlite:///")).exists():
        raise BadInput(f"{settings.home} holds no finished state", hint=_HINT)
    model = find_model(settings, use_case.model.name, CHAMPION)
    if model is None:
        raise BadInput(f"{use_case.model.name} has no champion in {settings.home}", hint=_HINT)
    return model


def view_rows(subject: Subject, scratch: Settings) -> Mapping[str, pa.Table]:
    """Return the rows of each view's table up to the end of the days, by event time."""
    lake = Lake.open(subject.settings, subject.use_case.project)
    found: dict[str, pa.Table] = {}
    for view in subject.views:
        with connect(scratch) as connection:
            until = TimeRange(EVENT_TIMESTAMP, None, subject.end)
            lake.register(connection, "view_rows", view.table, columns=view.schema.names, within=until)
            order = ", ".join(map(quote, (EVENT_TIMESTAMP, *view.schema.names)))
            rows: pa.Table = connection.sql(f"FROM view_rows ORDER BY {order}").to_arrow_table()
        found[view.name] = rows.cast(view.schema).combine_chunks()
    return found
