"""The bytes of one stored value: Feast's protobuf message `feast.types.Value`, made of Arrow columns and read without protobuf.

A value is one field of a `oneof`: a tag byte, then the payload; nothing at all is null. Where Feast 0.67 loses information
this layout does too, since it is the same bytes: a NaN is stored as null, a timestamp in whole seconds.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lockstep.clock import from_micros
from lockstep.errors import SchemaDrift
from lockstep.online.compounds import decode_compounds, encode_compounds
from lockstep.views.declare import DataType

# Field number << 3 | wire type, from feast/types/Value.proto.
_TAGS: Mapping[DataType, int] = {
    "bytes": 1 << 3 | 2,
    "string": 2 << 3 | 2,
    "int32": 3 << 3,
    "int64": 4 << 3,
    "float64": 5 << 3 | 1,
    "float32": 6 << 3 | 5,
    "bool": 7 << 3,
    "timestamp": 8 << 3,
}
# A tag and a number; they refuse bytes of another length.
_TAG_DOUBLE = struct.Struct("<Bd")
_TAG_FLOAT = struct.Struct("<Bf")
_SHIFTS = np.arange(0, 70, 7, dtype=np.uint64)
# The least number that needs one more byte, for each of the nine steps from one byte to ten.
_STEPS = np.array([1 << (7 * n) for n in range(1, 10)], np.uint64)
_HEADS = [bytes((length,)) for length in range(128)]
# Feast's materialization stores a null timestamp as NumPy's NaT, not as nothing.
_NAT = -(1 << 63)
_SECOND = 1_000_000


def encode_column(column: pa.Array, dtype: DataType) -> list[bytes]:
    """Return each value's bytes; b"" for null and NaN.

    Args:
        column: of a type whose `plain` is `STORED_TYPES[dtype]`, see `stored_types`.
        dtype: the declared type.

    Raises:
        NotYetSupported: the layout has no such type.
        BadInput: a value of a list or a text with a meaning cannot be stored.
    """
    if dtype not in _ENCODERS:
        return encode_compounds(column, dtype)
    null: NDArray[np.bool_] = column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    encoded = _ENCODERS[dtype](column, bytes((_TAGS[dtype],)))
    for row in np.flatnonzero(null).tolist():
        encoded[row] = b""
    return encoded


def decode_value(data: bytes | None, dtype: DataType) -> Any:
    """Return one value as Python has it (timestamps as datetime in UTC); None for null or a field that is not there.

    Raises:
        SchemaDrift: these are not the bytes of a `dtype`.
        NotYetSupported: the layout has no such type.
    """
    return decode_column((data,), dtype)[0]


def decode_column(cells: Sequence[bytes | None], dtype: DataType) -> list[Any]:
    """Decode many values of one type; see `decode_value`."""
    decode = _DECODERS.get(dtype)
    stored = [data for data in cells if data]
    try:
        values = decode(stored, _TAGS[dtype]) if decode else decode_compounds(stored, dtype, _decode_untagged)
    except (ValueError, IndexError, struct.error, OverflowError) as broken:
        raise SchemaDrift(
            f"the online store holds bytes that are no {dtype}", hint="the view's types changed, or they were damaged"
        ) from broken
    if len(stored) == len(cells):
        return values
    following = iter(values)
    return [next(following) if data else None for data in cells]


def _decode_untagged(payloads: Sequence[bytes], dtype: DataType) -> list[Any]:
    tag = _TAGS[dtype]
    head = bytes((tag,))
    return _DECODERS[dtype]([head + payload for payload in payloads], tag)


def encode_varints(values: NDArray[np.int64], tag: bytes) -> list[bytes]:
    """Return the tag and the protobuf varint of each integer; negative ones take ten bytes."""
    unsigned = values.view(np.uint64)
    sizes = np.searchsorted(_STEPS, unsigned, side="right") + 1
    groups = ((unsigned[:, None] >> _SHIFTS) & np.uint64(0x7F)).astype(np.uint8)
    groups[np.arange(len(_SHIFTS)) < sizes[:, None] - 1] |= 0x80
    data, width = groups.tobytes(), len(_SHIFTS)
    return [
        tag + data[start : start + size]
        for start, size in zip(range(0, len(data), width), sizes.tolist(), strict=True)
    ]


def decode_varint(data: bytes, start: int) -> tuple[int, int]:
    """Return the signed 64-bit integer whose varint starts at `start`, and where it ends.

    Raises:
        IndexError: it has no end.
        ValueError: it has more than 64 bits.
    """
    value = shift = 0
    while True:
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    if value >> 64:
        raise ValueError("a varint of more than 64 bits")
    return value - (1 << 64) if value >> 63 else value, start


def _encode_fixed(column: pa.Array, tag: bytes, number: str) -> list[bytes]:
    records = np.empty(len(column), np.dtype([("tag", "u1"), ("value", number)]))
    records["tag"] = tag[0]
    records["value"] = _numbers(column)
    return records.view(f"V{records.itemsize}").tolist()


def _encode_integers(column: pa.Array, tag: bytes) -> list[bytes]:
    return encode_varints(_numbers(column).astype(np.int64), tag)


def _encode_timestamps(column: pa.Array, tag: bytes) -> list[bytes]:
    return encode_varints(_numbers(column.cast(pa.int64())) // _SECOND, tag)


def _encode_bools(column: pa.Array, tag: bytes) -> list[bytes]:
    values = (tag + b"\x00", tag + b"\x01")
    return [values[value] for value in _numbers(column.cast(pa.uint8())).tolist()]


def _encode_binary(column: pa.Array, tag: bytes) -> list[bytes]:
    heads = [tag + head for head in _HEADS]
    return [
        (heads[len(value)] if len(value) < len(heads) else tag + _varint(len(value))) + value
        for value in pc.fill_null(column.cast(pa.large_binary()), b"").to_pylist()
    ]


def _numbers(column: pa.Array) -> NDArray[Any]:
    return pc.fill_null(column, 0).to_numpy(zero_copy_only=False)


def _varint(value: int) -> bytes:
    return encode_varints(np.array([value], np.int64), b"")[0]


_ENCODERS: Mapping[DataType, Callable[[pa.Array, bytes], list[bytes]]] = {
    "bool": _encode_bools,
    "int32": _encode_integers,
    "int64": _encode_integers,
    "float32": lambda column, tag: _encode_fixed(column, tag, "<f4"),
    "float64": lambda column, tag: _encode_fixed(column, tag, "<f8"),
    "string": _encode_binary,
    "bytes": _encode_binary,
    "timestamp": _encode_timestamps,
}


# Each takes the cells of a column that are not null. What a loop finds in its usual place it takes from there, for a call costs
# more than all of that; anything else, and what is no value at all, is left to the function that it calls.


def _decode_float64s(cells: Sequence[bytes], tag: int) -> list[float]:
    return [value if found == tag else _refuse(found) for found, value in map(_TAG_DOUBLE.unpack, cells)]


def _decode_float32s(cells: Sequence[bytes], tag: int) -> list[float]:
    return [value if found == tag else _refuse(found) for found, value in map(_TAG_FLOAT.unpack, cells)]


def _decode_integers(cells: Sequence[bytes], tag: int) -> list[int]:
    return [data[1] if len(data) == 2 and data[1] < 0x80 and data[0] == tag else _integer(data, tag) for data in cells]


def _integer(data: bytes, tag: int) -> int:
    if data[0] != tag:
        _refuse(data[0])
    value, end = decode_varint(data, 1)
    if end != len(data):
        raise ValueError("bytes behind the integer")
    return value


def _decode_int32s(cells: Sequence[bytes], tag: int) -> list[int]:
    values = _decode_integers(cells, tag)
    for value in values:
        if not -(1 << 31) <= value < 1 << 31:
            raise ValueError(f"{value} has more than 32 bits")
    return values


def _decode_bools(cells: Sequence[bytes], tag: int) -> list[bool]:
    return [bool(value) for value in _decode_integers(cells, tag)]


def _decode_timestamps(cells: Sequence[bytes], tag: int) -> list[datetime | None]:
    seconds = _decode_integers(cells, tag)
    return [None if second == _NAT else from_micros(second * _SECOND) for second in seconds]


def _decode_bytes(cells: Sequence[bytes], tag: int) -> list[bytes]:
    return [
        data[2:] if data[1] == len(data) - 2 and data[1] < 0x80 and data[0] == tag else _payload(data, tag)
        for data in cells
    ]


def _payload(data: bytes, tag: int) -> bytes:
    if data[0] != tag:
        _refuse(data[0])
    length, start = decode_varint(data, 1)
    if len(data) - start != length:
        raise ValueError(f"{len(data) - start} bytes instead of {length}")
    return data[start:]


def _decode_strings(cells: Sequence[bytes], tag: int) -> list[str]:
    return [data.decode() for data in _decode_bytes(cells, tag)]


def _refuse(tag: int) -> NoReturn:
    raise ValueError(f"tag {tag}")


_DECODERS: Mapping[DataType, Callable[[Sequence[bytes], int], list[Any]]] = {
    "bool": _decode_bools,
    "int32": _decode_int32s,
    "int64": _decode_integers,
    "float32": _decode_float32s,
    "float64": _decode_float64s,
    "string": _decode_strings,
    "bytes": _decode_bytes,
    "timestamp": _decode_timestamps,
}
