"""Where a row is in Redis: Feast 0.67's own keys and fields, and one field more for the created time.

One hash per entity key: the entity key (serialization version 3) followed by the project. In it, for each view,

    mmh3("<view>:<feature>")   4 bytes, little-endian   `feast.types.Value`, see `values`
    _ts:<view>                                          the event time as `google.protobuf.Timestamp`
    _lockstep:<view>                                    event and created time, microseconds, 2 x 8 bytes, little-endian: ours

Feast does not store the created time. Ours is stored with the event it belongs to, so that it counts as unknown (-1, older than
any) as soon as a stock Feast writer has put another event beside it. (It cannot see one that rewrites the same event, as Feast's
`skip_dedup: true` allows.)

Feast: `infra/online_stores/redis.py`, `infra/online_stores/helpers.py`, `infra/key_encoding_utils.py`.
"""

import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import mmh3
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lockstep.clock import to_micros
from lockstep.contract import Column, View
from lockstep.errors import BadInput, NotYetSupported, SchemaDrift, nearest
from lockstep.online.stored_types import STORED_TYPES, plain
from lockstep.online.values import decode_varint, encode_column, encode_varints
from lockstep.views.declare import CREATED_TIMESTAMP, EVENT_TIMESTAMP, DataType

UNKNOWN_CREATED = -1
# Lua, in which times are compared, has doubles: whole microseconds are exact up to the year 2255.
TIME_LIMIT_US = 1 << 53

_PAIR = struct.Struct("<qq")
_MICRO = 1_000_000
# feast.types.ValueType, which tags the parts of an entity key.
_BYTES, _STRING, _INT32, _INT64, _TIMESTAMP = 1, 2, 3, 4, 8
_TYPE_AND_LENGTH = struct.Struct("<II")
_GLOB = re.compile(rb"[\\*?\[\]]")


def field_of(view: str, feature: str) -> bytes:
    """Return the name of a feature's field."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def event_field(view: str) -> bytes:
    """Return the name of the field with a view's event time."""
    return f"_ts:{view}".encode()


def pair_field(view: str) -> bytes:
    """Return the name of the field with a view's (event, created)."""
    return f"_lockstep:{view}".encode()


def fields_of(view: View) -> tuple[bytes, ...]:
    """Return the fields of a view's row: event time, (event, created), then the columns in order."""
    return event_field(view.name), pair_field(view.name), *(field_of(view.name, c.name) for c in view.columns)


def require_distinct(fields: Mapping[tuple[str, str], bytes]) -> None:
    """Refuse two (view, feature) of one entity that hash to the same four bytes: they would overwrite each other.

    Raises:
        NotYetSupported: there are two such.
    """
    taken: dict[bytes, tuple[str, str]] = {}
    for feature, field in fields.items():
        other = taken.setdefault(field, feature)
        if other != feature:
            raise NotYetSupported(
                f"{':'.join(other)} and {':'.join(feature)} have the same field in Feast's Redis layout ({field.hex()})",
                hint="rename one of them",
            )


class EntityKeys:
    """Makes the Redis keys of one tuple of join keys.

    Args:
        project: whose keys.
        join_keys: their names and types, in any order.

    Raises:
        NotYetSupported: a join key has a type of which Feast makes no entity key.
    """

    def __init__(self, project: str, join_keys: Iterable[Column]) -> None:
        self.join_keys = tuple(sorted(join_keys, key=lambda key: key.name))
        for key in self.join_keys:
            if key.dtype not in _KEY_PARTS:
                raise NotYetSupported(
                    f"the join key {key.name} is a {key.dtype}; Feast's entity keys are made of {', '.join(_KEY_PARTS)}"
                )
        names = [key.name.encode() for key in self.join_keys]
        heads = [_TYPE_AND_LENGTH.pack(_STRING, len(name)) + name for name in names]
        self._head = struct.pack("<I", len(names)) + b"".join(heads)
        self._tail = project.encode()

    def encode(self, values: Mapping[str, Sequence[object]]) -> list[bytes]:
        """Return a key for each row of the join keys' values, which are all of one length.

        Raises:
            BadInput: a join key is missing, or a value is not of its type.
        """
        parts: list[list[bytes]] = []
        for key in self.join_keys:
            if key.name not in values:
                raise BadInput(f"the join key {key.name} is missing", hint=nearest(key.name, values))
            parts.append(_key_parts(key, values[key.name]))
        head, tail = self._head, self._tail
        if len(parts) == 1:
            return [head + part + tail for part in parts[0]]
        return [b"".join((head, *row, tail)) for row in zip(*parts, strict=True)]

    def pattern(self) -> bytes:
        """Return what SCAN has to match to find these keys, and perhaps some others."""
        return b"%b*%b" % tuple(_GLOB.sub(rb"\\\g<0>", part) for part in (self._head, self._tail))

    def value_of(self, key: bytes) -> object | None:
        """Return the value of the one join key that `encode` made this of; None if it is another entity's or project's."""
        (join_key,) = self.join_keys
        start, end = len(self._head) + _TYPE_AND_LENGTH.size, len(key) - len(self._tail)
        if start > end or not (key.startswith(self._head) and key.endswith(self._tail)):
            return None
        part = key[start:end]
        value = (
            part.decode(errors="replace")
            if join_key.dtype == "string"
            else int.from_bytes(part, "little", signed=True)
        )
        try:
            return value if self.encode({join_key.name: [value]}) == [key] else None
        except BadInput:
            return None


def project_of_key(key: bytes) -> str | None:
    """Return whose entity key a Redis key is; None if it is none."""
    try:
        (count,), at = struct.unpack_from("<I", key), 4
        for number in range(2 * count):  # the names of the join keys, then their values
            kind, length = _TYPE_AND_LENGTH.unpack_from(key, at)
            at += _TYPE_AND_LENGTH.size + length
            if number < count and kind != _STRING:
                return None
        return key[at:].decode() if count and at < len(key) else None
    except (struct.error, UnicodeDecodeError):
        return None


def _key_parts(key: Column, values: Sequence[object]) -> list[bytes]:
    kind, make = _KEY_PARTS[key.dtype]
    # Exactly this type: to Python a bool is an int too.
    wrong = {type(value).__name__ for value in values if type(value) is not kind}
    if wrong:
        raise BadInput(f"the join key {key.name} takes {key.dtype} ({kind.__name__}), not {', '.join(sorted(wrong))}")
    try:
        return make(values)
    except (struct.error, UnicodeEncodeError) as invalid:
        raise BadInput(f"a value of the join key {key.name} does not fit {key.dtype}: {invalid}") from None


def _int64_parts(values: Iterable[object]) -> list[bytes]:
    pack = struct.Struct("<IIq").pack
    return [pack(_INT64, 8, value) for value in values]


def _int32_parts(values: Iterable[object]) -> list[bytes]:
    pack = struct.Struct("<IIi").pack
    return [pack(_INT32, 4, value) for value in values]


def _string_parts(values: Iterable[object]) -> list[bytes]:
    encoded = [str(value).encode() for value in values]
    return [_TYPE_AND_LENGTH.pack(_STRING, len(value)) + value for value in encoded]


def _bytes_parts(values: Iterable[bytes]) -> list[bytes]:
    return [_TYPE_AND_LENGTH.pack(_BYTES, len(value)) + value for value in values]


def _timestamp_parts(values: Iterable[datetime]) -> list[bytes]:
    pack = struct.Struct("<IIq").pack
    return [pack(_TIMESTAMP, 8, to_micros(value) // _MICRO) for value in values]


_KEY_PARTS: Mapping[DataType, tuple[type, Callable[[Iterable[Any]], list[bytes]]]] = {
    "int64": (int, _int64_parts),
    "int32": (int, _int32_parts),
    "string": (str, _string_parts),
    "bytes": (bytes, _bytes_parts),
    "timestamp": (datetime, _timestamp_parts),
}


@dataclass(frozen=True)
class EncodedRows:
    """Rows as they are stored.

    Attributes:
        keys: each row's Redis key.
        fields: the names of the fields, see `fields_of`.
        columns: for each field its value in every row.
        pairs: each row's (event, created) in microseconds.
    """

    keys: list[bytes]
    fields: tuple[bytes, ...]
    columns: list[list[bytes]]
    pairs: list[tuple[int, int]]


class RowLayout:
    """Encodes the rows of one view.

    Args:
        project: whose keys.
        view: which view.

    Raises:
        NotYetSupported: the view has a type or a name that the layout cannot hold.
    """

    def __init__(self, project: str, view: View) -> None:
        self._view = view
        self._keys = EntityKeys(project, view.join_keys)
        self.fields = fields_of(view)
        require_distinct({(view.name, c.name): f for c, f in zip(view.columns, self.fields[2:], strict=True)})

    def require(self, rows: pa.Table) -> None:
        """Refuse rows that cannot be stored.

        Raises:
            SchemaDrift: a column is missing or has another type than the view declares.
            BadInput: a join key or a time is null, or a time is out of range.
        """
        view = self._view
        times = [Column(name=name, dtype="timestamp") for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP)]
        for column in (*view.join_keys, *view.columns, *times):
            if column.name not in rows.column_names:
                raise SchemaDrift(f"rows of {view.name} have no column {column.name}")
            found = rows.schema.field(column.name).type
            if plain(found) != STORED_TYPES[column.dtype]:
                raise SchemaDrift(
                    f"rows of {view.name} have {column.name} as {found}, declared {STORED_TYPES[column.dtype]}"
                )
        for column in (*view.join_keys, *times):
            if rows[column.name].null_count:
                raise BadInput(f"{rows[column.name].null_count} rows of {view.name} have no {column.name}")
        if rows.num_rows:
            _require_range(view.name, EVENT_TIMESTAMP, rows, -TIME_LIMIT_US)
            _require_range(view.name, CREATED_TIMESTAMP, rows, 0)

    def encode(self, rows: pa.Table) -> EncodedRows:
        """Return the rows as they are stored; `require` has let them pass."""
        columns = {name: rows[name].combine_chunks() for name in rows.column_names}
        events, created = (_micros(columns[name]) for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP))
        pairs = np.column_stack((events, created)).astype("<i8")
        return EncodedRows(
            keys=self._keys.encode({key.name: columns[key.name].to_pylist() for key in self._view.join_keys}),
            fields=self.fields,
            columns=[
                encode_events(events),
                pairs.view(f"V{_PAIR.size}")[:, 0].tolist(),
                *(encode_column(columns[column.name], column.dtype) for column in self._view.columns),
            ],
            pairs=list(zip(events.tolist(), created.tolist(), strict=True)),
        )


def encode_events(events: NDArray[np.int64]) -> list[bytes]:
    """Return each time, given in microseconds, as a `google.protobuf.Timestamp`; fields that are 0 are left out."""
    seconds, micros = np.divmod(events, _MICRO)
    heads, tails = encode_varints(seconds, b"\x08"), encode_varints(micros * 1_000, b"\x10")
    for row in np.flatnonzero(seconds == 0).tolist():
        heads[row] = b""
    for row in np.flatnonzero(micros == 0).tolist():
        tails[row] = b""
    return [head + tail for head, tail in zip(heads, tails, strict=True)]


def decode_event(data: bytes) -> int:
    """Return the microseconds of a `google.protobuf.Timestamp`, rounded down.

    Raises:
        SchemaDrift: the bytes are none.
    """
    numbers = {0x08: 0, 0x10: 0}
    at = 0
    try:
        while at < len(data):
            tag = data[at]
            if tag not in numbers:
                raise SchemaDrift(f"the online store holds an event time that is none: {data.hex()}")
            numbers[tag], at = decode_varint(data, at + 1)
    except (IndexError, ValueError) as broken:
        raise SchemaDrift(f"the online store holds an event time that is none: {data.hex()}") from broken
    return numbers[0x08] * _MICRO + numbers[0x10] // 1_000


def decode_pair(event: bytes, pair: bytes | None) -> tuple[int, int]:
    """Return a stored row's (event, created) in microseconds; created is -1 where it is not known of this event.

    Raises:
        SchemaDrift: the event time or the pair is not what is written there.
    """
    event_us = decode_event(event)
    if pair is None:
        return event_us, UNKNOWN_CREATED
    if len(pair) != _PAIR.size:
        raise SchemaDrift(f"the online store holds {len(pair)} bytes for (event, created), not {_PAIR.size}")
    pair_event, created = _PAIR.unpack(pair)
    return event_us, created if pair_event == event_us else UNKNOWN_CREATED


def readable_pair(event: bytes, pair: bytes | None) -> tuple[int, int] | None:
    """Return what `decode_pair` does; None where the bytes are no times, or such as no row can have."""
    try:
        found = decode_pair(event, pair)
    except SchemaDrift:
        return None
    return found if max(map(abs, found)) <= TIME_LIMIT_US else None


def _micros(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    return column.cast(pa.int64()).to_numpy()


def _require_range(view: str, name: str, rows: pa.Table, least: int) -> None:
    micros = _micros(rows[name])
    if micros.min() < least or micros.max() > TIME_LIMIT_US:
        raise BadInput(f"rows of {view} have a {name} out of range: {micros.min()} to {micros.max()} microseconds")
