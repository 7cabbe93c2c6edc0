"""The types a row of the online store can have: their names here, in Feast and in Arrow; their fields in Feast's `Value`.

Feast: `types.py`, `value_type.py`, `protos/feast/types/Value.proto`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import pyarrow as pa

from lockstep.errors import NotYetSupported
from lockstep.views.declare import ARROW_TYPES, DataType

# Each type's field of feast.types.Value.
_TEXTS: Mapping[str, int] = {"json": 32, "uuid": 36, "time_uuid": 37, "decimal": 44}
_LISTS: Mapping[str, int] = {
    "bytes": 11,
    "string": 12,
    "int32": 13,
    "int64": 14,
    "float64": 15,
    "float32": 16,
    "bool": 17,
    "timestamp": 18,
    "json": 33,
    "uuid": 38,
    "time_uuid": 39,
    "decimal": 45,
}
_SETS: Mapping[str, int] = {
    "bytes": 22,
    "string": 23,
    "int32": 24,
    "int64": 25,
    "float64": 26,
    "float32": 27,
    "bool": 28,
    "timestamp": 29,
    "uuid": 40,
    "time_uuid": 41,
    "decimal": 46,
}
_NESTED: Mapping[str, int] = {"list": 42, "set": 43}

Kind = Literal["text", "list", "set", "nested"]


@dataclass(frozen=True)
class Compound:
    """How a type is stored.

    Attributes:
        kind: what it is made of items of.
        item: a scalar type or a text's; of a nested one the type of the lists in it.
        tag: of its field in feast.types.Value.
    """

    kind: Kind
    item: DataType
    tag: bytes


def varint(number: int) -> bytes:
    """Return the varint of a length or a tag."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*encoded, number))


def _compound(kind: Kind, item: str, field: int) -> Compound:
    return Compound(kind, cast("DataType", item), varint(field << 3 | 2))


COMPOUNDS: Mapping[str, Compound] = {
    **{name: _compound("text", name, field) for name, field in _TEXTS.items()},
    **{f"list<{item}>": _compound("list", item, field) for item, field in _LISTS.items()},
    **{f"set<{item}>": _compound("set", item, field) for item, field in _SETS.items()},
    **{
        f"{outer}<list<{item}>>": _compound("nested", f"list<{item}>", field)
        for outer, field in _NESTED.items()
        for item in ARROW_TYPES
    },
}


def _arrow_type(dtype: str) -> pa.DataType:
    compound = COMPOUNDS.get(dtype)
    if compound is None:
        return ARROW_TYPES[cast("Any", dtype)]
    return pa.string() if compound.kind == "text" else pa.list_(_arrow_type(compound.item))


# What a column of each type is in Arrow, as `plain` has it: a set is a list, a text with a meaning a string.
STORED_TYPES: Mapping[DataType, pa.DataType] = {
    **ARROW_TYPES,
    **{cast("DataType", name): _arrow_type(name) for name in COMPOUNDS},
}


def plain(found: pa.DataType) -> pa.DataType:
    """Return the one spelling of a type: neither large nor of fixed size, its items' name and nullability forgotten."""
    if pa.types.is_large_string(found):
        return pa.string()
    if pa.types.is_large_binary(found):
        return pa.binary()
    if pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found):
        return pa.list_(plain(found.value_type))
    return found


def stored_type(value_type: str, inner: str = "") -> DataType:
    """Return the type of the values that Feast calls by a name.

    Args:
        value_type: the name of a `feast.ValueType`, such as INT64_LIST.
        inner: that of the lists or sets inside a VALUE_LIST or a VALUE_SET; Feast stores either as lists.

    Raises:
        NotYetSupported: Feast itself cannot materialize them from Arrow, has no one way to store them, or cannot read them again.
    """
    if value_type in _FEAST_NAMES:
        return _FEAST_NAMES[value_type]
    if value_type in ("VALUE_LIST", "VALUE_SET"):
        item = _FEAST_NAMES.get(inner.removesuffix("_SET").removesuffix("_LIST"), "")
        nested = f"{value_type.removeprefix('VALUE_').lower()}<list<{item}>>"
        if inner.endswith(("_LIST", "_SET")) and nested in COMPOUNDS:
            return cast("DataType", nested)
        raise NotYetSupported(f"the online store cannot hold a {value_type} of {inner or 'what is not said'}")
    raise NotYetSupported(f"the online store cannot hold Feast's {value_type}", hint=_REASONS.get(value_type, ""))


_NO_ORDER = "Feast writes a map's entries in no order that could be written again; store it as JSON"
_REASONS: Mapping[str, str] = {
    **dict.fromkeys(("MAP", "MAP_LIST", "STRUCT", "STRUCT_LIST"), _NO_ORDER),
    "SCALAR_MAP": "Feast 0.67 does not materialize Arrow's maps; store it as JSON",
    "ZONED_TIMESTAMP": "Feast 0.67 does not materialize it from Arrow, whose columns have one zone; store a timestamp",
}


def _feast_names() -> dict[str, DataType]:
    scalars = {"float64": "DOUBLE", "float32": "FLOAT", "timestamp": "UNIX_TIMESTAMP"}
    names = {name: scalars.get(name, name.upper()) for name in (*ARROW_TYPES, *_TEXTS)}
    return cast(
        "dict[str, DataType]",
        {
            **{feast: name for name, feast in names.items()},
            **{f"{names[item]}_LIST": f"list<{item}>" for item in _LISTS},
            **{f"{names[item]}_SET": f"set<{item}>" for item in _SETS},
            "PDF_BYTES": "bytes",
            "IMAGE_BYTES": "bytes",
        },
    )


_FEAST_NAMES: Mapping[str, DataType] = _feast_names()
