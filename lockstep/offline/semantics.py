"""What *the value at a time* means, for every engine alike.

The value of a view for key k at time t, as known at time a (a = t unless a caller says otherwise), is that of

    the row of k with the greatest event_timestamp <= t, created_timestamp + visible_lag <= a, t - event_timestamp <= ttl
    (0 = no limit); among equal event_timestamps the greatest created_timestamp; no such row: null.

Rows in are rows out: as many, in the same order, duplicates kept. A null in a key answers null, and a row without a time or
with a null in its key never answers. A row may be there twice; but rows of one key, event and created time that say
different things are refused, for nothing says which is right. `as_known` says the same in Python.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from lockstep.clock import to_micros
from lockstep.errors import BadInput, NotYetSupported, SchemaDrift, VerificationFailed, nearest
from lockstep.views.declare import ARROW_TYPES, CREATED_TIMESTAMP, EVENT_TIMESTAMP

TIME = ARROW_TYPES["timestamp"]
_FIRST_US = to_micros(datetime.min.replace(tzinfo=UTC))
_LAST_US = to_micros(datetime.max.replace(tzinfo=UTC))
_PART_ROWS = 1_000_000
_EXACT = {*ARROW_TYPES.values(), pa.date32()}


@dataclass(frozen=True)
class FeatureRow:
    """A row of a feature table; times are microseconds since 1970-01-01T00:00Z."""

    key: tuple[Any, ...]
    event_us: int
    created_us: int
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])


def as_known(
    rows: Iterable[FeatureRow], key: tuple[Any, ...], t: int, a: int, ttl: int, visible_lag: int
) -> FeatureRow | None:
    """Return the row that answers for `key` at `t` as known at `a`: the definition, slow and plain; all in microseconds."""
    known = [
        row
        for row in rows
        if row.key == key
        and None not in key
        and row.event_us <= t
        and row.created_us + visible_lag <= a
        and (ttl == 0 or t - row.event_us <= ttl)
    ]
    return max(known, key=lambda row: (row.event_us, row.created_us), default=None)


@dataclass(frozen=True)
class ViewRead:
    """What one retrieval reads of one view.

    Attributes:
        table: its table in the lake.
        join_keys: the table's key columns, each with the spine's column that it is compared to.
        columns: the feature columns, each with its name in the result.
        ttl_us: how long a row answers, in microseconds; 0 is for ever.
        visible_lag_us: from a row's created time to when it could be read, in microseconds.
        every_us: event times are mostly multiples of it, in microseconds. It changes no answer, only how fast it comes.
        snapshot_id: as of which snapshot; None is the newest.
    """

    table: str
    join_keys: Mapping[str, str]
    columns: Mapping[str, str]
    ttl_us: int = 0
    visible_lag_us: int = 0
    every_us: int = 1
    snapshot_id: int | None = None

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns of the table that are read."""
        return (*self.join_keys, *self.columns, EVENT_TIMESTAMP, CREATED_TIMESTAMP)


def check_spine(
    spine: pa.Table, reads: Sequence[ViewRead], schemas: Mapping[str, pa.Schema], time_column: str
) -> None:
    """Refuse entity rows that cannot be answered, before any data is read.

    Args:
        spine: the entity rows.
        reads: what is read for them.
        schemas: the Arrow schema of each table that is read.
        time_column: the spine's column with the time each row asks for.

    Raises:
        BadInput: the spine lacks a column, has one twice, has one of the wrong type, or has one named like a feature.
        SchemaDrift: a table lacks a column.
        NotYetSupported: a view has no join key, or a feature is of a type that engines do not agree on.
    """
    if twice := sorted({name for name in spine.column_names if spine.column_names.count(name) > 1}):
        raise BadInput(f"the spine has the column {', '.join(twice)} twice", hint="rename one of them")
    _check_time(spine, time_column)
    taken = set(spine.column_names)
    for read in reads:
        _check_table(read, schemas[read.table])
        _check_keys(spine, read, schemas[read.table])
        for name in read.columns.values():
            if name in taken:
                whose = "the spine" if name in spine.column_names else "another view"
                raise BadInput(
                    f"{read.table} would add the column {name!r}, which {whose} has already",
                    hint="rename the spine's column, or ask for full feature names",
                )
            taken.add(name)


def _check_time(spine: pa.Table, time_column: str) -> None:
    if time_column not in spine.column_names:
        raise BadInput(f"the spine has no column {time_column!r}", hint=nearest(time_column, spine.column_names))
    times = spine[time_column]
    if not pa.types.is_timestamp(times.type):
        raise BadInput(f"the spine's {time_column} is {times.type}, no time", hint=f"cast it to {TIME}")
    if times.type.tz is None:
        raise BadInput(
            f"the times in the spine's {time_column} have no zone", hint="say which one; UTC is never guessed"
        )
    if times.null_count:
        raise BadInput(
            f"{times.null_count} of {spine.num_rows} rows of the spine have no {time_column}", hint="drop them"
        )


def _check_table(read: ViewRead, schema: pa.Schema) -> None:
    if not read.join_keys:
        raise NotYetSupported(f"{read.table} has no join key; only views of an entity can be read")
    for name in read.needed:
        if name not in schema.names:
            raise SchemaDrift(f"the table {read.table} has no column {name!r}", hint=nearest(name, schema.names))
    for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP):
        if plain(schema.field(name).type) != TIME:
            raise SchemaDrift(f"the table {read.table} has {name} as {schema.field(name).type}, not {TIME}")
    for name in read.columns:
        if not _exact(schema.field(name).type):
            raise NotYetSupported(
                f"the table {read.table} has {name} as {schema.field(name).type}, which engines give back each in its own way",
                hint="store numbers, text, bytes, times, decimals, or lists of them",
            )


def _check_keys(spine: pa.Table, read: ViewRead, schema: pa.Schema) -> None:
    for name, column in read.join_keys.items():
        if column not in spine.column_names:
            raise BadInput(
                f"the spine lacks the join key {column!r} of {read.table}", hint=nearest(column, spine.column_names)
            )
        given, wanted = plain(spine.schema.field(column).type), plain(schema.field(name).type)
        if given != wanted:
            raise BadInput(
                f"the spine's {column} is {given}, the join key of {read.table} is {wanted}",
                hint=f"cast {column} to {wanted}; a key of another type is another key online",
            )


def times_us(spine: pa.Table, time_column: str) -> pa.ChunkedArray:
    """Return the spine's times as int64 microseconds since 1970-01-01T00:00Z, exactly.

    Raises:
        BadInput: a time is finer than a microsecond.
    """
    try:
        return spine[time_column].cast(TIME).cast(pa.int64())
    except pa.ArrowInvalid as inexact:
        raise BadInput(
            f"the spine's {time_column} does not fit whole microseconds: {inexact}",
            hint="round it to microseconds, downwards",
        ) from inexact


def span_us(spine: pa.Table, time_column: str) -> tuple[int, int] | None:
    """Return the first and the last time that a spine asks for, in microseconds; None when it has no row.

    The spine may be larger than memory: it is looked at a part at a time.

    Raises:
        BadInput: a time is finer than a microsecond, or out of range.
    """
    spans: list[tuple[int, int]] = []
    for part in spine.select([time_column]).to_batches(max_chunksize=_PART_ROWS):
        micros = times_us(pa.Table.from_batches([part]), time_column).to_numpy()
        spans += [(int(micros.min()), int(micros.max()))] if len(micros) else []
    if not spans:
        return None
    first, last = min(first for first, _ in spans), max(last for _, last in spans)
    if first < _FIRST_US or last > _LAST_US:
        raise BadInput(f"the spine's {time_column} leaves the calendar", hint="times lie in the years 1 to 9999")
    return first, last


def require_same_rows(table: str, asked: int, answered: pa.ChunkedArray) -> None:
    """Refuse an answer that is not one row for each row asked, in order.

    Args:
        table: what was read, for the message.
        asked: how many rows the spine has.
        answered: the row numbers that came back.

    Raises:
        VerificationFailed: a row was lost, doubled or moved.
    """
    if not answered.combine_chunks().equals(pa.array(np.arange(asked))):
        raise VerificationFailed(
            f"{table}: {asked} rows were asked for, {len(answered)} came back, or in another order",
            hint="this is a bug in the engine; the result must not be used",
        )


def whole_micros(rows: pa.Table) -> pa.Table:
    """Return rows with their zoned times in whole microseconds of UTC, as the lake has them.

    Raises:
        BadInput: a time is finer than a microsecond.
    """
    fields = [f.with_type(TIME) if pa.types.is_timestamp(f.type) and f.type.tz else f for f in rows.schema]
    try:
        return rows.cast(pa.schema(fields))
    except pa.ArrowInvalid as inexact:
        raise BadInput(
            f"a time does not fit whole microseconds: {inexact}", hint="round it to microseconds, downwards"
        ) from inexact


def _exact(data_type: pa.DataType) -> bool:
    """Tell whether every engine gives values of a type back as they are."""
    kind = plain(data_type)
    if pa.types.is_list(kind):
        return _exact(kind.value_type)
    timestamp = pa.types.is_timestamp(kind) and kind.unit == "us"
    return timestamp or pa.types.is_decimal(kind) or kind in _EXACT


def plain(data_type: pa.DataType) -> pa.DataType:
    """Return a type without what Arrow and Iceberg spell differently for the same thing."""
    if pa.types.is_list(data_type) or pa.types.is_large_list(data_type):
        return pa.list_(plain(data_type.value_type))
    spellings = {
        pa.large_string(): pa.string(),
        pa.large_binary(): pa.binary(),
        pa.timestamp("us", tz="+00:00"): TIME,
    }
    return spellings.get(data_type, data_type)


def contradiction(read: ViewRead, key: Mapping[str, Any], event: datetime, created: datetime) -> BadInput:
    """Return the error for rows of one key, event and created time that say different things."""
    named = ", ".join(f"{name}={value!r}" for name, value in key.items())
    return BadInput(
        f"{read.table}: two rows of {named} have the event time {event.isoformat()} and the created time "
        f"{created.isoformat()}, and say different things",
        hint="nothing says which is right: write a correction with a later created time",
    )
