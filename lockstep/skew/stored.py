"""Values in the bytes that the store holds, changed one by one."""

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from lockstep.online.stored_types import STORED_TYPES
from lockstep.online.values import decode_value, encode_column
from lockstep.skew.fault import StoredRow
from lockstep.views.declare import DataType

_LARGEST = 2**63 - 1


def with_values(row: StoredRow, columns: Mapping[bytes, DataType], change: Callable[[Any], Any]) -> StoredRow:
    """Return a hash with the numbers in these fields changed; null stays null, and what no int64 holds stays as it is."""
    return {
        field: encoded(change(value), columns[field])
        if field in columns and (value := decode_value(data, columns[field])) is not None
        else data
        for field, data in row.items()
    }


def encoded(value: Any, dtype: DataType) -> bytes:
    """Return the bytes of one value."""
    if dtype == "int64":
        value = max(-_LARGEST, min(_LARGEST, int(value)))
    return encode_column(pa.array([value], STORED_TYPES[dtype]), dtype)[0]
