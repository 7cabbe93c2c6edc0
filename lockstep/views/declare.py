"""What a use case declares: plain data, from which Feast's objects, the tick query and the contract are derived.

Nothing here imports Feast or an engine, so that a step pays only for what it uses.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from math import isfinite
from typing import Any, ClassVar, Literal, get_args

import pyarrow as pa

from lockstep.clock import MICROSECOND
from lockstep.errors import NotYetSupported, UseCaseError, nearest
from lockstep.hashing import digest, source_hash
from lockstep.views.compound_types import CompoundType

ScalarType = Literal["bool", "int32", "int64", "float32", "float64", "string", "bytes", "timestamp"]
# Views declare scalars; the online store can hold the others too.
DataType = ScalarType | CompoundType
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
WhenNull = Literal["null", "default", "reject"]
_KEY_TYPES: tuple[DataType, ...] = ("int32", "int64", "string")
EVENT_TIMESTAMP = "event_timestamp"
CREATED_TIMESTAMP = "created_timestamp"
DAY = timedelta(days=1)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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


@dataclass(frozen=True, kw_only=True)
class StoredView(ABC):
    """A view whose values are computed at ticks, kept in a table of the lake, and brought online.

    Attributes:
        name: the view's name, and its table's.
        entity: what the values are about.
        source: the rows they are made of.
        every: the time between two ticks; ticks are multiples of it since 1970-01-01T00:00Z.
        ttl: how long a row answers; 0 is for ever.
        freshness: how old the watermark may be.
        owner: who answers for it.
        compute_lag: from a tick to its rows' created time.
        visible_lag: from the created time to readable online.
        kind: what its values are, in a word.

    Raises:
        UseCaseError: the declaration contradicts itself.
        NotYetSupported: a feature is no scalar, or the join key no integer or text.
    """

    name: str
    entity: Entity
    source: Source
    every: timedelta
    ttl: timedelta
    freshness: Freshness
    owner: str
    compute_lag: timedelta = timedelta(minutes=5)
    visible_lag: timedelta = timedelta(minutes=5)
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    kind: ClassVar[str]

    @property
    @abstractmethod
    def features(self) -> dict[str, DataType]:
        """The stored features in order, with their types."""

    @property
    @abstractmethod
    def rules(self) -> dict[str, Any]:
        """What decides a stored value, besides entity, source and ticks."""

    @property
    @abstractmethod
    def value_columns(self) -> tuple[str, ...]:
        """The source's columns that values are made of, besides the key and the times."""

    @property
    def source_columns(self) -> tuple[str, ...]:
        """All columns of the source that decide a value, each once: the key, the two times, and those above."""
        needed = (self.entity.join_key, self.source.event_time, self.source.known_at, *self.value_columns)
        return tuple(dict.fromkeys(needed))

    @property
    def table(self) -> str:
        """The view's Iceberg table in the lake."""
        return self.name

    @property
    def ticks_per_day(self) -> int:
        """How many ticks a day has."""
        return DAY // self.every

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
                "every": self.every // MICROSECOND,
                **self.rules,
            }
        )

    @property
    @abstractmethod
    def least_ttl(self) -> timedelta:
        """The shortest ttl under which no quiet key's row expires before the one that repeats it can be read."""

    def __post_init__(self) -> None:
        """Refuse ticks that do not tile a day, a ttl that leaves holes, and names that only some engines know how to spell."""
        for name in (self.name, self.entity.join_key, *self.features):
            if not _NAME.fullmatch(name):
                raise UseCaseError(
                    f"view {self.name}: {name!r} is no name for a table or a column of one",
                    hint="take letters a-z, digits and _, the first no digit: Iceberg spells others differently in files",
                )
        if self.entity.dtype not in _KEY_TYPES:
            raise NotYetSupported(
                f"view {self.name}: its join key {self.entity.join_key} is a {self.entity.dtype}",
                hint=f"requests and the served log carry keys of {', '.join(_KEY_TYPES)}",
            )
        _require_scalars(self.name, self.features)
        names = [name.lower() for name in self.features]
        if twins := sorted({name for name in names if names.count(name) > 1}):
            raise UseCaseError(
                f"view {self.name}: features named {', '.join(twins)} differ in case alone",
                hint="engines do not tell them apart",
            )
        if self.every <= timedelta(0) or DAY % self.every:
            raise UseCaseError(f"view {self.name}: every={self.every} does not divide a day into whole ticks")
        if self.ttl and self.ttl < self.least_ttl:
            raise UseCaseError(
                f"view {self.name}: ttl {self.ttl} is shorter than {self.least_ttl}, from a row to its repetition with both lags",
                hint="a quiet key's row would expire before the one that repeats it can be read",
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

    Raises:
        NotYetSupported: an input or an output is no scalar.
    """

    name: str
    function: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    inputs: Mapping[str, DataType]
    reads: tuple[tuple[StoredView, str], ...]
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

    def __post_init__(self) -> None:
        """Refuse values that retrieval and serving cannot carry."""
        _require_scalars(self.name, {**self.inputs, **self.outputs})


def _require_scalars(view: str, types: Mapping[str, DataType]) -> None:
    for name, dtype in types.items():
        if dtype in get_args(CompoundType):
            raise NotYetSupported(
                f"view {view}: {name} is a {dtype}, which the online store can hold and a declared view cannot",
                hint=f"scalars go all the way: {', '.join(ARROW_TYPES)}",
            )


@dataclass(frozen=True)
class FeatureRef:
    """One feature of one view."""

    view: str
    feature: str


@dataclass(frozen=True)
class NullPolicy:
    """What becomes of a row in which a feature has no value: no row answered, it was older than its ttl, or it holds a null.

    The value half of a model's policy: the same in training and in serving, and part of the contract.

    Raises:
        UseCaseError: there is no such policy, or it has a value and uses none, or the other way round, or the value is no number.
    """

    when_null: WhenNull
    default: float | None = None

    def __post_init__(self) -> None:
        """Refuse here what the contract would not hold."""
        if self.when_null not in get_args(WhenNull):
            raise UseCaseError(
                f"there is no policy {self.when_null!r}", hint=nearest(self.when_null, get_args(WhenNull))
            )
        if (self.when_null == "default") != (self.default is not None):
            raise UseCaseError(
                f"the policy {self.when_null!r} comes with the value {self.default}",
                hint="write default(0.0) or reject()",
            )
        if self.default is not None and not isfinite(self.default):
            raise UseCaseError(
                f"the default {self.default} is no number", hint="leave the feature out of the policy: null is NaN"
            )


def default(value: float) -> NullPolicy:
    """The model gets this value."""
    return NullPolicy("default", float(value))


def reject() -> NullPolicy:
    """The row is not scored: training leaves it out, serving answers 422."""
    return NullPolicy("reject")


@dataclass(frozen=True)
class FeatureService:
    """The features of one model, in the model's order.

    Attributes:
        policy: by feature, what becomes of a row in which it has no value; of a feature that is not named the model gets a null.
    """

    name: str
    features: tuple[tuple[StoredView | OnDemandView, str], ...]
    owner: str
    description: str = ""
    policy: Mapping[str, NullPolicy] = field(default_factory=dict[str, NullPolicy])

    @property
    def refs(self) -> tuple[FeatureRef, ...]:
        """The features by name, in the model's order."""
        return tuple(FeatureRef(view.name, feature) for view, feature in self.features)
