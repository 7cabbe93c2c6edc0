"""The feature contract: what a model was trained on, in the form that serving, the served log, parity and the gate go by.

One immutable value, made when a training set is built and never edited after. Its hash names it everywhere.
"""

from collections.abc import Collection
from datetime import datetime
from math import isfinite
from typing import Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lockstep.clock import MICROSECOND
from lockstep.errors import BadInput
from lockstep.hashing import digest
from lockstep.views.declare import DataType, StoredView, WhenNull

CONTRACT_VERSION = 2
ENTITY_KEY_VERSION = 3


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Frozen):
    """A named value with its type."""

    name: str
    dtype: DataType


class Feature(_Frozen):
    """One input of the model.

    Attributes:
        name: its column's name.
        view: the view it comes from.
        dtype: its type before it becomes the model's float64.
        tolerance: the greatest absolute difference that still counts as equal; None means equal to the last bit.
        when_null: what becomes of a row in which it has no value, whatever the reason: the model gets a *null*, the *default*,
            or the row is *rejected*, in training and in serving alike (`lockstep/serving/policy.py`).
        default: that value.
    """

    name: str
    view: str
    dtype: DataType
    tolerance: float | None = None
    when_null: WhenNull = "null"
    default: float | None = None

    @model_validator(mode="after")
    def _default_where_it_is_used(self) -> Self:
        if (self.when_null == "default") != (self.default is not None and isfinite(self.default)):
            raise ValueError(f"feature {self.name}: when_null is {self.when_null!r} and default is {self.default}")
        return self


class View(_Frozen):
    """What reading, judging and finding again the rows of one stored view takes; times are whole microseconds.

    Attributes:
        kind: *ticked* views are computed at multiples of `every_us`.
        table: its Iceberg table.
        join_keys: its join keys, sorted by name as in the entity key.
        columns: the stored features that are read online, in order.
        ttl_us: how long a row answers; 0 is for ever.
    """

    name: str
    kind: Literal["ticked"] = "ticked"
    table: str
    join_keys: tuple[Column, ...]
    columns: tuple[Column, ...]
    ttl_us: int = Field(ge=0)
    every_us: int = Field(gt=0)
    compute_lag_us: int = Field(ge=0)
    visible_lag_us: int = Field(ge=0)
    freshness_us: int = Field(gt=0)
    freshness_hard: bool
    owner: str
    definition_hash: str


class OnDemand(_Frozen):
    """A function that makes features of a request's inputs and stored features.

    Attributes:
        function: `module:function`, importable where it is served.
        source_hash: of the module and what it imports inside the use case.
        reads: the stored features it takes, as (view, column).
    """

    name: str
    function: str
    source_hash: str
    inputs: tuple[Column, ...]
    reads: tuple[tuple[str, str], ...]
    outputs: tuple[Column, ...]
    owner: str


class TableCut(_Frozen):
    """The snapshot of a table that a training set was read from, and the tag that keeps it."""

    table: str
    snapshot_id: int
    tag: str


class TrainingCut(_Frozen):
    """Where a training set was cut.

    Attributes:
        tables: the snapshot of each table read.
        spine_hash: SHA-256 of the entity rows.
        known_at: nothing that became known later was read.
    """

    tables: tuple[TableCut, ...]
    spine_hash: str
    known_at: datetime

    @property
    def snapshots(self) -> dict[str, int]:
        """The snapshot of each table."""
        return {cut.table: cut.snapshot_id for cut in self.tables}


class FeatureContract(_Frozen):
    """Everything that must hold for a served vector to be the one a training set would contain.

    Attributes:
        fallback: the contract of the model in the same folder that answers while a view whose objective is hard is late; it is
            of the same cut, and lists some of the same features.
    """

    version: Literal[2] = CONTRACT_VERSION
    project: str
    feature_service: str
    entity_key_version: Literal[3] = ENTITY_KEY_VERSION
    join_keys: tuple[Column, ...]
    request_inputs: tuple[Column, ...]
    features: tuple[Feature, ...]
    views: tuple[View, ...]
    on_demand: tuple[OnDemand, ...]
    cut: TrainingCut
    fallback: "FeatureContract | None" = None

    @model_validator(mode="after")
    def _fallback_of_the_same_set(self) -> Self:
        fallback = self.fallback
        if fallback is None:
            return self
        if fallback.fallback is not None:
            raise ValueError(f"the fallback {fallback.feature_service} has a fallback itself")
        if (fallback.project, fallback.cut) != (self.project, self.cut):
            raise ValueError(f"the fallback {fallback.feature_service} is of another project or cut")
        listed = {(feature.view, feature.name) for feature in self.features}
        if foreign := [f"{f.view}:{f.name}" for f in fallback.features if (f.view, f.name) not in listed]:
            raise ValueError(
                f"the fallback {fallback.feature_service} takes {', '.join(foreign)}, which {self.feature_service} does not"
            )
        return self

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON."""
        return digest(self.model_dump(mode="json"))

    @property
    def with_fallback(self) -> "tuple[FeatureContract, ...]":
        """This contract, and its fallback's if it has one."""
        return (self,) if self.fallback is None else (self, self.fallback)

    def to_json(self) -> bytes:
        """Return the canonical JSON: sorted keys, no spaces."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, text: bytes | str) -> "FeatureContract":
        """Read a contract.

        Raises:
            BadInput: this release cannot read it.
        """
        _require_version(text)
        try:
            return cls.model_validate_json(text)
        except ValidationError as invalid:
            raise BadInput(
                f"this is no feature contract of version {CONTRACT_VERSION}:\n{_first_few(invalid)}"
            ) from invalid

    def view(self, name: str) -> View:
        """Return a stored view.

        Raises:
            KeyError: the contract lists no such view.
        """
        return next(v for v in self.views if v.name == name)


def _require_version(text: bytes | str) -> None:
    """Refuse a contract of another version by that alone: its fields are others, and each would be an error of its own."""
    try:
        version = orjson.loads(text).get("version", CONTRACT_VERSION)
    except (orjson.JSONDecodeError, AttributeError):  # what it is instead, pydantic says
        return
    if version != CONTRACT_VERSION:
        later = isinstance(version, int) and version > CONTRACT_VERSION
        raise BadInput(
            f"this is a feature contract of version {version}; this release reads {CONTRACT_VERSION}",
            hint="take the release that trained the model" if later else "train the model again",
        )


def _first_few(invalid: ValidationError, most: int = 3) -> str:
    """Return the first errors in one line each, and how many more there are."""
    errors = invalid.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{'.'.join(map(str, error['loc'])) or 'the whole'}: {error['msg']}" for error in errors[:most]]
    return "\n".join(told + [f"and {len(errors) - most} more"] * (len(errors) > most))


def stored_view(view: StoredView, columns: Collection[str] | None = None) -> View:
    """Describe a windowed view as it is stored, with all its features or just those in `columns`, in the view's order."""
    return View(
        name=view.name,
        table=view.table,
        join_keys=(Column(name=view.entity.join_key, dtype=view.entity.dtype),),
        columns=tuple(
            Column(name=name, dtype=dtype)
            for name, dtype in view.features.items()
            if columns is None or name in columns
        ),
        ttl_us=view.ttl // MICROSECOND,
        every_us=view.every // MICROSECOND,
        compute_lag_us=view.compute_lag // MICROSECOND,
        visible_lag_us=view.visible_lag // MICROSECOND,
        freshness_us=view.freshness.objective // MICROSECOND,
        freshness_hard=view.freshness.hard,
        owner=view.owner,
        definition_hash=view.definition_hash,
    )
