"""The simulated world around the pipelines: it delivers what became known, and makes the requests that happen."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, cast

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lockstep.clock import from_micros, to_micros
from lockstep.contract import FeatureContract
from lockstep.lake import Lake
from lockstep.serving.features import REQUEST_TIME_US
from lockstep.serving.request import REQUEST_TIME
from lockstep.views import UseCase
from lockstep.views.declare import EVENT_TIMESTAMP, StoredView
from pipelines._use_case import load_module

_END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Requests:
    """What is asked in a stretch of time, in order of time, with the answers that only the world knows.

    Attributes:
        rows: join keys and request inputs, `event_timestamp`, and the label.
        times_us: each row's time in microseconds, ascending.
        labels: 0 or 1 a row.
    """

    rows: pa.Table
    times_us: NDArray[np.int64]
    labels: NDArray[np.int64]

    def between(self, start: datetime, end: datetime) -> "Requests":
        """Return those of `[start, end)`."""
        first, last = np.searchsorted(self.times_us, [to_micros(start), to_micros(end)])
        return Requests(self.rows.slice(first, last - first), self.times_us[first:last], self.labels[first:last])

    def instances(self, contract: FeatureContract) -> list[dict[str, Any]]:
        """Return them as a model of this contract is asked."""
        names = [c.name for c in (*contract.join_keys, *contract.request_inputs) if c.name != REQUEST_TIME_US]
        times = [from_micros(time).isoformat() for time in self.times_us.tolist()]
        if not names:
            return [{REQUEST_TIME: time} for time in times]
        rows = self.rows.select(names).to_pylist()
        return [{**row, REQUEST_TIME: time} for row, time in zip(rows, times, strict=True)]


class SimulatedWorld(Protocol):
    """What happens in a world, raw: one Arrow table an attribute, named as the tables of the model's spine are."""

    @property
    def parameters(self) -> Any:
        """What it was made from; `start` is when its history begins."""


class Simulator(Protocol):
    """What a use case's `world` module offers."""

    def make_world(self, size: int, days: int) -> SimulatedWorld:
        """Return a world of this size and as many days, the same one each time."""
        ...

    def append_slice(self, lake: Lake, world: Any, start: datetime | None, end: datetime) -> Mapping[str, int]:
        """Append to the lake what became known in `[start, end)`, None being the beginning; return the rows a table."""
        ...


class Scenario(Simulator, Protocol):
    """What a use case's `demo` module says.

    Attributes:
        BASELINE: the feature service of a model without feature views.
        SKEW: the misread column: `view`, `column`, and the column that is `read` instead.
        POSITIVES: what the rows with the label 1 are called: `frauds`.
    """

    BASELINE: str
    SKEW: Mapping[str, str]
    POSITIVES: str


class World:
    """The world of a use case, and how much of it the lake has been told.

    Args:
        lake: what is delivered to.
        use_case: whose world.
        simulator: the use case's `world` module, or its `demo`, which is one too.
        size: how large.
        days: how many days of it there are.

    Attributes:
        start: when its history begins.
        views: the use case's stored ones.
        compute_lag: from a tick until all views can be computed for it.
        both_lags: from a tick until all views promise to have it online.
    """

    def __init__(self, lake: Lake, use_case: UseCase, simulator: Simulator, size: int, days: int) -> None:
        self._lake, self._use_case, self._simulator = lake, use_case, simulator
        self._world = simulator.make_world(size, days)
        self._delivered: datetime | None = None
        self.start: datetime = self._world.parameters.start
        self.views: tuple[StoredView, ...] = use_case.views
        self.compute_lag = max(view.compute_lag for view in use_case.views)
        self.both_lags = max(view.compute_lag + view.visible_lag for view in use_case.views)

    def deliver(self, until: datetime) -> Mapping[str, int]:
        """Append what became known since the last delivery and before `until`; return the rows a table."""
        told: Mapping[str, int] = self._simulator.append_slice(self._lake, self._world, self._delivered, until)
        self._delivered = until
        return told

    def requests(self, start: datetime, length: timedelta) -> Requests:
        """Return what is asked in `[start, start + length)`: the entity rows of the model's own spine, labels included."""
        recipe = self._use_case.model
        parameters = {"start": start, "end": start + length, "known_at": _END_OF_TIME}
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for table in recipe.spine_tables:
                connection.register(table, getattr(self._world, table))
            spine = connection.sql(recipe.spine, params=parameters).to_arrow_table()
        spine = spine.sort_by([(name, "ascending") for name in (EVENT_TIMESTAMP, *sorted(spine.column_names))])
        times = spine[EVENT_TIMESTAMP].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
        return Requests(spine, times, spine[recipe.label].cast(pa.int64()).to_numpy())


def load_scenario(package: str) -> Scenario:
    """Return what a use case's demo plays.

    Raises:
        BadInput: it has none, or it lacks something.
    """
    needed = ("BASELINE", "SKEW", "POSITIVES", "make_world", "append_slice")
    return cast("Scenario", load_module(package, "demo", "nothing to demonstrate", needed))


def load_simulator(package: str) -> Simulator:
    """Return what makes a use case's world.

    Raises:
        BadInput: it has none, or it lacks something.
    """
    return cast(
        "Simulator", load_module(package, "world", "no world to try a view in", ("make_world", "append_slice"))
    )
