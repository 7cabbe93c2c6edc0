"""The bytes of values beyond the eight scalars: Feast's lists, sets, lists of lists, and texts with a meaning.

    uuid, time_uuid, decimal, json      a text
    list<T>, set<T>                     a message with one repeated field: numbers packed into one run of bytes, texts one by one
    list<list<T>>, set<list<T>>         a message of such messages

What Feast 0.67 materializes decides, byte for byte, and with what it loses: a null inside a list is the item's zero, an empty
list inside a list is null, a set is in the order in which this very process's Python has it. What it cannot store, or not read
again, is refused.

Feast: `type_map.py`, `protos/feast/types/Value.proto`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lockstep.errors import BadInput, NotYetSupported
from lockstep.online.stored_types import COMPOUNDS, Compound, Kind, varint
from lockstep.views.declare import DataType

Decode = Callable[[Sequence[bytes], DataType], list[Any]]

_SHIFTS = np.arange(0, 70, 7, dtype=np.uint64)
_STEPS = np.array([1 << (7 * n) for n in range(1, 10)], np.uint64)
_ITEM = b"\x0a"  # field 1 of a list: an item, or the run of packed ones
_SECOND = 1_000_000
_NAT = -(1 << 63)
# What Python's datetime has, and so Feast's reader, up to the last whole second: a list's float may round up beyond that.
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_000_000

_WIDTHS: Mapping[str, int] = {"float32": 4, "float64": 8}
_VARINTS = frozenset({"bool", "int32", "int64", "timestamp"})
_HEADS = [varint(length) for length in range(1 << 12)]


def encode_compounds(column: pa.Array, dtype: DataType) -> list[bytes]:
    """Return each value's bytes; b"" for null.

    Args:
        column: of a type whose `plain` is `STORED_TYPES[dtype]`.
        dtype: the declared type.

    Raises:
        NotYetSupported: the layout has no such type.
        BadInput: a value that Feast cannot store or not read again, such as a null among integers or a text that is no UUID.
    """
    compound = _known(dtype)
    null: NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    if compound.kind == "text":
        cells = [compound.tag + _prefixed(value) for value in _texts(column, compound.item)]
    elif compound.kind == "nested":
        inner = COMPOUNDS[compound.item]
        empty = inner.tag + b"\x00"
        # To Feast an empty list inside a list is null.
        lists = [b"" if cell == empty else cell for cell in _encode_lists(column.flatten(), inner, "nested")]
        messages = [_ITEM + _prefixed(cell) for cell in lists]
        cells = [compound.tag + _prefixed(b"".join(messages[start:stop])) for start, stop in _spans(column)]
    else:
        cells = _encode_lists(column, compound, compound.kind)
    for row in np.flatnonzero(null).tolist():
        cells[row] = b""
    return cells


def decode_compounds(cells: Sequence[bytes], dtype: DataType, decode: Decode) -> list[Any]:
    """Return the values as Feast reads them: a set as a set, JSON parsed, an empty list inside a list as None.

    Args:
        cells: none of them null.
        dtype: the declared type.
        decode: reads scalars, which are given without their tags.

    Raises:
        NotYetSupported: the layout has no such type.
        ValueError, IndexError: these are not the bytes of a `dtype`.
    """
    compound = _known(dtype)
    payloads = [_after(compound.tag, cell) for cell in cells]
    if compound.kind == "text":
        return _decode_items(payloads, compound.item, decode)
    messages = [_message(payload) for payload in payloads]
    if compound.kind == "nested":
        lists = [[_message(item) for item in _split_delimited(message)] for message in messages]
        return _regrouped(lists, lambda flat: _decode_nested(flat, compound.item, decode))
    if compound.item in _WIDTHS:
        return [_shaped(np.frombuffer(_run(m), f"<f{_WIDTHS[compound.item]}").tolist(), compound) for m in messages]
    split = _split_varints if compound.item in _VARINTS else _split_delimited
    items = [split(_run(m) if compound.item in _VARINTS else m) for m in messages]
    return [
        _shaped(row, compound) for row in _regrouped(items, lambda flat: _decode_items(flat, compound.item, decode))
    ]


def _known(dtype: DataType) -> Compound:
    compound = COMPOUNDS.get(dtype)
    if compound is None:
        raise NotYetSupported(f"the online store cannot hold a {dtype}")
    return compound


def _prefixed(data: bytes) -> bytes:
    length = len(data)
    return (_HEADS[length] if length < len(_HEADS) else varint(length)) + data


def _spans(column: pa.Array) -> list[tuple[int, int]]:
    """Return where in the flattened column each row's items start and stop; a null has none."""
    lengths: NDArray[np.int64] = pc.fill_null(pc.call_function("list_value_length", [column]), 0).to_numpy()
    return list(pairwise([0, *np.cumsum(lengths).tolist()]))


def _encode_lists(column: pa.Array, compound: Compound, kind: Kind) -> list[bytes]:
    """Return the cells of lists or sets; b"" for null."""
    items, spans = column.flatten(), _spans(column)
    _require_items(items, compound.item, kind)
    if compound.kind == "set":
        items, spans = _without_repeats(column, items.type)
    data, ends = _encode_items(items, compound.item, kind)
    packed = compound.item in _WIDTHS or compound.item in _VARINTS
    cells: list[bytes] = []
    for (start, stop), valid in zip(spans, column.is_valid().to_pylist(), strict=True):
        run = data[ends[start] : ends[stop]]
        cells.append(compound.tag + _prefixed(_ITEM + _prefixed(run) if packed and run else run) if valid else b"")
    return cells


def _without_repeats(column: pa.Array, item: pa.DataType) -> tuple[pa.Array, list[tuple[int, int]]]:
    """Return the sets' items one set after another, and where each set's are."""
    # The same objects as Feast puts into a Python set, so that they come out in the same order.
    rows = [row for row in column.to_numpy(zero_copy_only=False) if row is not None]
    sets = [np.array(list(set(row)), row.dtype) for row in rows]
    flat = np.concatenate(sets) if sets else np.empty(0, object)
    # A NaN is no null; and pyarrow has no way from NumPy's times to a type with a zone but by their integers.
    items = (
        pa.array(flat.view(np.int64)).cast(item) if flat.dtype.kind == "M" else pa.array(flat, item, from_pandas=False)
    )
    sizes = iter(map(len, sets))
    ends = np.cumsum([0, *(next(sizes) if valid else 0 for valid in column.is_valid().to_pylist())]).tolist()
    return items, list(pairwise(ends))


# What Feast stores for a null among the items. It fails for the other types, or stores a text that it cannot read.
_ZEROS: Mapping[str, Any] = {
    "bytes": b"",
    "string": "",
    "bool": False,
    "float32": np.nan,
    "float64": np.nan,
    "json": "null",
}
_NULLABLE: Mapping[Kind, frozenset[str]] = {
    "list": frozenset({*_ZEROS, "timestamp"}),
    "set": frozenset({"bool", "float32", "float64", "timestamp"}),
    "nested": frozenset({"float32", "float64", "timestamp"}),
}


def _require_items(items: pa.Array, item: DataType, kind: Kind) -> None:
    if items.null_count and item not in _NULLABLE[kind]:
        raise BadInput(
            f"{items.null_count} nulls among the {item}s of a {'nested list' if kind == 'nested' else kind}",
            hint="Feast cannot store or not read them: leave them out",
        )
    if item == "timestamp":
        micros = items.drop_null().cast(pa.int64()).to_numpy()
        if np.any((micros < _FIRST_US) | (micros > _LAST_US)):
            raise BadInput(f"a {kind} has a timestamp out of the years 1 to 9999: {micros.min()} to {micros.max()} us")


def _encode_items(items: pa.Array, item: DataType, kind: Kind) -> tuple[bytes, list[int]]:
    """Return the items' bytes one after another, and where each begins and the last one ends."""
    if item in _WIDTHS:
        numbers = pc.fill_null(items, np.nan).to_numpy(zero_copy_only=False)
        return numbers.astype(f"<f{_WIDTHS[item]}").tobytes(), list(range(0, numbers.nbytes + 1, _WIDTHS[item]))
    if item in _VARINTS:
        return _encode_varints(_integers(items, item, kind))
    cells = [_ITEM + _prefixed(value) for value in _texts(items, item)]
    return b"".join(cells), np.cumsum([0, *map(len, cells)]).tolist()


def _integers(items: pa.Array, item: DataType, kind: Kind) -> NDArray[np.int64]:
    if item != "timestamp":
        numbers = pc.fill_null(items, False if item == "bool" else 0)
        return numbers.cast(pa.int64()).to_numpy()
    micros: NDArray[np.int64] = pc.fill_null(items.cast(pa.int64()), _NAT).to_numpy()
    if kind == "list":
        # Here Feast goes through Python's float and rounds towards zero; elsewhere NumPy rounds down.
        return np.array([us if us == _NAT else int(us / _SECOND) for us in micros.tolist()], np.int64)
    return np.where(micros == _NAT, _NAT, micros // _SECOND)


def _encode_varints(values: NDArray[np.int64]) -> tuple[bytes, list[int]]:
    unsigned = values.view(np.uint64)
    sizes = np.searchsorted(_STEPS, unsigned, side="right") + 1
    groups = ((unsigned[:, None] >> _SHIFTS) & np.uint64(0x7F)).astype(np.uint8)
    places = np.arange(len(_SHIFTS))
    groups[places < sizes[:, None] - 1] |= 0x80
    return groups[places < sizes[:, None]].tobytes(), [0, *np.cumsum(sizes).tolist()]


def _texts(values: pa.Array, item: DataType) -> list[bytes]:
    """Return texts and bytes as they are, a null as its zero.

    Raises:
        BadInput: one does not mean what its type says.
    """
    for read in filter(None, (_MEANINGS.get(item),)):
        for text in values.unique().drop_null().to_pylist():
            try:
                read(text)
            except (ValueError, InvalidOperation, RecursionError):
                raise BadInput(f"{text!r} is no {item}") from None
    zero = _ZEROS.get(item, "")
    filled = pc.fill_null(values.cast(pa.large_binary()), zero if isinstance(zero, bytes) else zero.encode())
    return filled.to_pylist()


_MEANINGS: Mapping[str, Callable[[str], Any]] = {
    "json": json.loads,
    "uuid": UUID,
    "time_uuid": UUID,
    "decimal": Decimal,
}


def _after(tag: bytes, cell: bytes) -> bytes:
    if not cell.startswith(tag):
        raise ValueError(f"tag {cell[: len(tag)].hex()} instead of {tag.hex()}")
    return cell[len(tag) :]


def _length(data: bytes, start: int) -> tuple[int, int]:
    """Return the length that is written at `start`, and where its varint ends."""
    length = shift = 0
    while data[start] > 0x7F:
        length |= (data[start] & 0x7F) << shift
        start, shift = start + 1, shift + 7
    return length | data[start] << shift, start + 1


def _message(data: bytes) -> bytes:
    """Return what follows its own length."""
    length, start = _length(data, 0)
    if len(data) - start != length:
        raise ValueError(f"{len(data) - start} bytes instead of {length}")
    return data[start:]


def _run(message: bytes) -> bytes:
    """Return the packed numbers of a list."""
    return _message(_after(_ITEM, message)) if message else b""


def _split_varints(run: bytes) -> list[bytes]:
    stops = [at for at, byte in enumerate(run, 1) if byte < 0x80]
    if run and (not stops or stops[-1] != len(run)):
        raise ValueError("a varint without an end")
    return [run[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def _split_delimited(message: bytes) -> list[bytes]:
    """Return each item of a message, with its length before it."""
    items: list[bytes] = []
    at = 0
    while at < len(message):
        if message[at] != _ITEM[0]:
            raise ValueError(f"tag {message[at]} among the items")
        length, start = _length(message, at + 1)
        items.append(message[at + 1 : start + length])
        at = start + length
    if at > len(message):
        raise ValueError("an item is cut off")
    return items


def _decode_items(payloads: Sequence[bytes], item: DataType, decode: Decode) -> list[Any]:
    read = _MEANINGS.get(item)
    if read is None:
        return decode(payloads, item)
    try:
        return [read(text) for text in decode(payloads, "string")]
    except InvalidOperation as broken:
        raise ValueError(f"no {item}") from broken


def _decode_nested(lists: Sequence[bytes], inner: DataType, decode: Decode) -> list[Any]:
    values = iter(decode_compounds([cell for cell in lists if cell], inner, decode))
    return [next(values) if cell else None for cell in lists]


def _regrouped(rows: Sequence[Sequence[bytes]], decode: Callable[[list[bytes]], list[Any]]) -> list[list[Any]]:
    """Decode the items of all rows in one go."""
    values = iter(decode([item for row in rows for item in row]))
    return [[next(values) for _ in row] for row in rows]


def _shaped(values: list[Any], compound: Compound) -> list[Any] | set[Any]:
    return set(values) if compound.kind == "set" else values
