"""A view's source as arrays, and the rows of each key in order of time: what the exact clock reckons with.

Keys are numbered, and times are searched for within the rows of one key. So no key and time are ever packed into one number,
which 64 bits could not always hold.
"""
# pyarrow's compute functions are made at run time.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lockstep.clock import to_micros
from lockstep.errors import BadInput, SchemaDrift, nearest
from lockstep.views.declare import ARROW_TYPES, DataType, StoredView

Keys = pa.Array | pa.ChunkedArray | NDArray[Any] | Sequence[Any]
_FIRST_US = to_micros(datetime.min.replace(tzinfo=UTC))
_LAST_US = to_micros(datetime.max.replace(tzinfo=UTC))
# How many searches go through the rows at once: so few that what they work on stays in the processor's cache.
_PART = 1 << 15


@dataclass(frozen=True)
class Asked:
    """The keys and times whose values are asked for.

    Attributes:
        keys: each key once.
        number: which of them each row asks for; one past the last where its key is null.
        time_us: microseconds since 1970-01-01T00:00Z.
        before: the position in the source of each row itself, if it has one there.
    """

    keys: pa.Array
    number: NDArray[np.int64]
    time_us: NDArray[np.int64]
    before: NDArray[np.int64] | None

    @classmethod
    def of(
        cls, view: StoredView, keys: Keys, times_us: NDArray[np.int64], before: NDArray[np.int64] | None
    ) -> "Asked":
        """Take what a caller gives.

        Raises:
            BadInput: the lengths differ, a key has another type than the view's, or a time is no integer or in no year 1 to 9999.
        """
        given: pa.Array | pa.ChunkedArray = keys if isinstance(keys, pa.Array | pa.ChunkedArray) else pa.array(keys)
        wanted = ARROW_TYPES[view.entity.dtype]
        if not _is_kind(given.type, wanted) and not pa.types.is_null(given.type):
            raise BadInput(f"view {view.name}: its keys are {wanted}, those asked for are {given.type}")
        for name, values in (("times_us", times_us), ("before", before)):
            if values is None:
                continue
            if values.dtype.kind != "i":
                raise BadInput(
                    f"view {view.name}: {name} is {values.dtype}, not int64", hint="a time is whole microseconds"
                )
            if values.shape != (len(given),):
                raise BadInput(f"view {view.name}: {len(given)} keys, and {name} has the shape {values.shape}")
        if not _in_calendar(times_us):
            raise BadInput(
                f"view {view.name}: a time lies in no year from 1 to 9999", hint="times are microseconds since 1970"
            )
        given = given.cast(wanted)
        distinct = pc.unique(given).drop_null()
        number = pc.index_in(given, value_set=distinct)
        return cls(
            distinct,
            _int64(number, null=len(distinct)),
            times_us.astype(np.int64, copy=False),
            None if before is None else before.astype(np.int64, copy=False),
        )


@dataclass(frozen=True)
class SourceRows:
    """The rows of a source that can count for the keys asked for, in the source's order.

    Attributes:
        keys: how many keys are asked for.
        number: of each row's key.
        event_us: when each row happened.
        known_us: when it became known; not before it happened.
        position: where it stands in the source.
    """

    keys: int
    number: NDArray[np.int64]
    event_us: NDArray[np.int64]
    known_us: NDArray[np.int64]
    position: NDArray[np.int64]

    @classmethod
    def of(cls, view: StoredView, source: pa.Table, keys: pa.Array) -> "SourceRows":
        """Find the rows; those that ticks quarantine are none: without a key or a time, or known before they happened.

        Raises:
            SchemaDrift: a column is missing, or has another type than the view's; or a time lies in no year from 1 to 9999.
        """
        key = column(view, source, view.entity.join_key, view.entity.dtype)
        event = column(view, source, view.source.event_time, "timestamp")
        known = column(view, source, view.source.known_at, "timestamp")
        number = _int64(pc.index_in(key, value_set=keys), null=-1)
        event_us, known_us = _int64(event, null=0), _int64(known, null=0)
        if not (_in_calendar(event_us) and _in_calendar(known_us)):
            raise SchemaDrift(f"view {view.name}: source {view.source.table} has a time in no year from 1 to 9999")
        counts = (number >= 0) & (event_us <= known_us)
        for times in (event, known):
            if times.null_count:
                counts &= times.is_valid().to_numpy(zero_copy_only=False)
        if counts.all():
            return cls(len(keys), number, event_us, known_us, np.arange(len(number)))
        position = np.flatnonzero(counts)
        return cls(len(keys), number[position], event_us[position], known_us[position], position)

    def by(self, time_us: NDArray[np.int64]) -> "History":
        """Return the rows of each key in order of a time."""
        order = np.lexsort((time_us, self.number))
        starts = np.zeros(self.keys + 2, np.int64)
        np.cumsum(np.bincount(self.number, minlength=self.keys + 1), out=starts[1:])
        return History(order, time_us[order], starts)


@dataclass(frozen=True)
class History:
    """The rows of each key in order of a time, equal times as they stand in the source.

    Attributes:
        order: the rows, key after key.
        time_us: their times.
        starts: where each key's rows begin in `order`, and where the last key's end; one more for no key, without rows.
    """

    order: NDArray[np.int64]
    time_us: NDArray[np.int64]
    starts: NDArray[np.int64]

    def reach(self, number: NDArray[np.int64], before_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how far the rows of each key reach, as a place in `order`, whose time is below `before_us`."""
        return count_below(self.time_us, self.starts[number], self.starts[number + 1], before_us)


def count_below(
    values: NDArray[np.int64], start: NDArray[np.int64], stop: NDArray[np.int64], bound: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the first place of each `start <= place < stop` whose value is not below the bound, or `stop`.

    Each slice of `values` is sorted. A binary search of all slices in step: as many passes as the longest has binary digits.
    """
    found = np.empty(len(start), np.int64)
    for first in range(0, len(start), _PART):
        part = slice(first, first + _PART)
        place, end, limit = start[part].copy(), stop[part], bound[part]
        longest = int((end - place).max())
        step = 1 << (longest.bit_length() - 1) if longest else 0
        while step:
            probe = place + (step - 1)
            below = probe < end
            below &= values.take(probe, mode="clip") < limit
            place += step * below
            step >>= 1
        found[part] = place
    return found


def column(view: StoredView, source: pa.Table, name: str, dtype: DataType) -> pa.ChunkedArray:
    """Return a column of a source as the view's type.

    Raises:
        SchemaDrift: it is missing, of another kind, or has a value that the view's type does not hold.
    """
    wanted = ARROW_TYPES[dtype]
    if name not in source.column_names:
        raise SchemaDrift(
            f"view {view.name}: source {view.source.table} has no column {name}",
            hint=nearest(name, source.column_names),
        )
    there = source[name]
    if not _is_kind(there.type, wanted):
        raise SchemaDrift(
            f"view {view.name}: source {view.source.table}: column {name} is {there.type} in the table and {wanted} in the view"
        )
    try:
        return there.cast(wanted)
    except pa.ArrowInvalid as invalid:
        raise SchemaDrift(
            f"view {view.name}: source {view.source.table}: column {name} is no {wanted}: {invalid}"
        ) from invalid


def _is_kind(there: pa.DataType, wanted: pa.DataType) -> bool:
    """Say whether values may be cast without a change of what they mean: a text is no number, a time without a zone no time."""
    if there == wanted:
        return True
    if pa.types.is_timestamp(wanted):
        return pa.types.is_timestamp(there) and there.tz is not None
    kinds = (
        pa.types.is_integer,
        pa.types.is_floating,
        lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
        lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
    )
    return any(is_one(there) and is_one(wanted) for is_one in kinds)


def _in_calendar(time_us: NDArray[np.int64]) -> bool:
    """Say whether all times are ones that sums with durations keep in 64 bits."""
    return not len(time_us) or bool(time_us.min() >= _FIRST_US and time_us.max() <= _LAST_US)


def _int64(values: pa.Array | pa.ChunkedArray, null: int) -> NDArray[np.int64]:
    whole = values.cast(pa.int64())
    return (whole.fill_null(null) if whole.null_count else whole).to_numpy()
