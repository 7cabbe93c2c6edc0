"""What a use case declares: plain data, from which Feast's objects, the tick query and the contract are derived.

Nothing here imports Feast or an engine, so that a step pays only for what it uses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import pyarrow as pa

from lockstep.clock import MICROSECOND
from lockstep.errors import UseCaseError
from lockstep.hashing import digest, source_hash

DataType = Literal["bool", "int32", "int64", "float32", "float64", "string", "bytes", "timestamp"]
ARROW_TYPES: Mapping[DataType, pa.DataType] = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bytes": pa.binary(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
EVENT_TIMESTAMP = "event_timestamp"
CREATED_TIMESTAMP = "created_timestamp"
DAY = timedelta(days=1)


def days(number: float) -> timedelta:
    """Return a duration in days."""
    return timedelta(days=number)


def hours(number: float) -> timedelta:
    """Return a duration in hours."""
    return timedelta(hours=number)


def minutes(number: float) -> timedelta:
    """Return a duration in minutes."""
    return timedelta(minutes=number)


@dataclass(frozen=True)
class Entity:
    """What features are about; `join_key` is the column that names one."""

    name: str
    join_key: str
    dtype: DataType
    owner: str
    description: str = ""


@dataclass(frozen=True)
class Source:
    """A raw table of the lake, append only.

    Attributes:
        table: its name in the lake.
        event_time: the column with the time something happened.
        known_at: the column with the time it became known; never before `event_time`.
    """

    table: str
    event_time: str
    known_at: str
    owner: str
    description: str = ""


@dataclass(frozen=True)
class Freshness:
    """How old a view's watermark may be, softly or hard."""

    objective: timedelta
    hard: bool


def soft(objective: timedelta) -> Freshness:
    """Past this age somebody is told."""
    return Freshness(objective, hard=False)


def hard(objective: timedelta) -> Freshness:
    """Past this age the view may not be used (declared in the contract; serving does not act on it yet)."""
    return Freshness(objective, hard=True)


@dataclass(frozen=True)
class Measure:
    """An integer that is added up over the rows of a window: the number of rows, or the sum of one integer column."""

    name: str
    column: str | None = None


def count(name: str) -> Measure:
    """Count the rows of each window."""
    return Measure(name)


def total(column: str, name: str | None = None) -> Measure:
    """Add up an integer column over each window."""
    return Measure(name or column, column)


@dataclass(frozen=True)
class Ratio:
    """One float64 quotient of two measures of the same window; `empty` where the denominator is 0."""

    name: str
    numerator: str
    denominator: str
    empty: float = 0.0


def ratio(name: str, numerator: str, denominator: str, *, empty: float = 0.0) -> Ratio:
    """Divide one measure by another, once, at the end."""
    return Ratio(name, numerator, denominator, empty)


@dataclass(frozen=True)
class WindowedView:
    """Sums over the half-open windows `[T - delay - window, T - delay)` of a key's rows, at every tick T.

    Attributes:
        name: the view's name, and its table's.
        entity: what the values are about.
        source: the rows that are summed.
        measures: the integers that are summed.
        ratios: the quotients made of them.
        windows: their lengths, whole ticks each.
        every: the time between two ticks; ticks are multiples of it since 1970-01-01T00:00Z.
        delay: how far the windows lie in the past.
        ttl: how long a row answers; 0 is for ever.
        compute_lag: from a tick to its rows' created time.
        visible_lag: from the created time to readable online.
        freshness: how old the watermark may be.
        owner: who answers for it.
    """

    name: str
    entity: Entity
    source: Source
    measures: tuple[Measure, ...]
    windows: tuple[timedelta, ...]
    every: timedelta
    ttl: timedelta
    freshness: Freshness
    owner: str
    ratios: tuple[Ratio, ...] = ()
    delay: timedelta = timedelta(0)
    compute_lag: timedelta = timedelta(minutes=5)
    visible_lag: timedelta = timedelta(minutes=5)
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def table(self) -> str:
        """The view's Iceberg table in the lake."""
        return self.name

    @property
    def ticks_per_day(self) -> int:
        """How many ticks a day has."""
        return DAY // self.every

    def column(self, name: str, window: timedelta) -> str:
        """Return the feature's name: that of a measure or ratio and the window, such as `nb_tx_7d`."""
        unit, size = ("d", DAY) if window % DAY == timedelta(0) else ("h", timedelta(hours=1))
        return f"{name}_{window // size}{unit}"

    @property
    def features(self) -> dict[str, DataType]:
        """The stored features in order, with their types: measures, then ratios, by window."""
        integers: dict[str, DataType] = {self.column(m.name, w): "int64" for m in self.measures for w in self.windows}
        floats: dict[str, DataType] = {self.column(r.name, w): "float64" for r in self.ratios for w in self.windows}
        return integers | floats

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the view's Iceberg table."""
        return pa.schema(
            [pa.field(self.entity.join_key, ARROW_TYPES[self.entity.dtype], nullable=False)]
            + [pa.field(name, ARROW_TYPES[dtype]) for name, dtype in self.features.items()]
            + [
                pa.field(name, ARROW_TYPES["timestamp"], nullable=False)
                for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP)
            ]
        )

    @property
    def definition_hash(self) -> str:
        """SHA-256 of everything that decides a stored value."""
        return digest(
            {
                "name": self.name,
                "join_key": [self.entity.join_key, self.entity.dtype],
                "source": [self.source.table, self.source.event_time, self.source.known_at],
                "measures": [[m.name, m.column] for m in self.measures],
                "ratios": [[r.name, r.numerator, r.denominator, r.empty] for r in self.ratios],
                "windows": [w // MICROSECOND for w in self.windows],
                "every": self.every // MICROSECOND,
                "delay": self.delay // MICROSECOND,
            }
        )


def windowed_view(
    *,
    name: str,
    entity: Entity,
    source: Source,
    measures: Sequence[Measure],
    windows: Sequence[timedelta],
    every: timedelta,
    ttl: timedelta,
    freshness: Freshness,
    owner: str,
    ratios: Sequence[Ratio] = (),
    delay: timedelta = timedelta(0),
    compute_lag: timedelta = timedelta(minutes=5),
    visible_lag: timedelta = timedelta(minutes=5),
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> WindowedView:
    """Declare a view of sums over sliding windows, evaluated at ticks; see `WindowedView` for each argument.

    Raises:
        UseCaseError: the declaration contradicts itself.
    """
    view = WindowedView(
        name=name,
        entity=entity,
        source=source,
        measures=tuple(measures),
        windows=tuple(sorted(windows)),
        every=every,
        ttl=ttl,
        freshness=freshness,
        owner=owner,
        ratios=tuple(ratios),
        delay=delay,
        compute_lag=compute_lag,
        visible_lag=visible_lag,
        description=description,
        tags=dict(tags or {}),
    )
    _refuse_contradictions(view)
    return view


def _refuse_contradictions(view: WindowedView) -> None:
    if view.every <= timedelta(0) or DAY % view.every:
        raise UseCaseError(f"view {view.name}: every={view.every} does not divide a day into whole ticks")
    if not view.windows or not view.measures:
        raise UseCaseError(f"view {view.name} needs at least one window and one measure")
    for window in view.windows:
        if window <= timedelta(0) or window % view.every:
            raise UseCaseError(f"view {view.name}: window {window} is not a whole number of ticks of {view.every}")
    known = {m.name for m in view.measures}
    for quotient in view.ratios:
        for part in (quotient.numerator, quotient.denominator):
            if part not in known:
                raise UseCaseError(
                    f"view {view.name}: ratio {quotient.name} divides {part!r}, which is no measure of it"
                )
    if len(view.features) != (len(view.measures) + len(view.ratios)) * len(view.windows):
        raise UseCaseError(f"view {view.name} declares one feature name twice")
    least = DAY + view.every + view.compute_lag + view.visible_lag
    if view.ttl and view.ttl < least:
        raise UseCaseError(
            f"view {view.name}: ttl {view.ttl} is shorter than a day's heartbeat, a tick and both lags ({least})",
            hint="rows of a quiet key would expire between two heartbeats",
        )


@dataclass(frozen=True)
class OnDemandView:
    """Features computed at request time from the request's inputs and stored features.

    Attributes:
        name: the view's name.
        function: from a mapping of input name to NumPy array (float64 with NaN for null, or int64 for request inputs), all
            of one length, to a mapping of output name to array. Importable, pure, and never edited in place once published.
        inputs: the request's own inputs with their types.
        reads: the stored features it takes, as (view, feature).
        outputs: the features it gives, in order, with their types.
        owner: who answers for it.
    """

    name: str
    function: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    inputs: Mapping[str, DataType]
    reads: tuple[tuple[WindowedView, str], ...]
    outputs: Mapping[str, DataType]
    owner: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def features(self) -> dict[str, DataType]:
        """The features in order, with their types."""
        return dict(self.outputs)

    @property
    def reference(self) -> str:
        """Where the function is imported from: `module:function`."""
        return f"{self.function.__module__}:{self.function.__qualname__}"

    @property
    def source_hash(self) -> str:
        """SHA-256 of the function's module and of what that imports inside the use case."""
        return source_hash(self.function.__module__)


@dataclass(frozen=True)
class FeatureRef:
    """One feature of one view."""

    view: str
    feature: str


@dataclass(frozen=True)
class FeatureService:
    """The features of one model, in the model's order."""

    name: str
    features: tuple[tuple[WindowedView | OnDemandView, str], ...]
    owner: str
    description: str = ""

    @property
    def refs(self) -> tuple[FeatureRef, ...]:
        """The features by name, in the model's order."""
        return tuple(FeatureRef(view.name, feature) for view, feature in self.features)
