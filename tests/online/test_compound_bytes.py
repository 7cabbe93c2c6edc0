"""The bytes of lists, sets and texts with a meaning, without Feast: those very bytes, what is refused, what is damaged."""

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, get_args
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_rows import NOON_US, make_rows, make_view

from lockstep.clock import from_micros
from lockstep.errors import BadInput, NotYetSupported, SchemaDrift
from lockstep.online.layout import EntityKeys, RowLayout
from lockstep.online.stored_types import STORED_TYPES, plain
from lockstep.online.values import decode_value, encode_column
from lockstep.views.compound_types import CompoundType
from lockstep.views.declare import DataType, ScalarType

NAT = "80808080808080808001"
FIVE = "00000000-0000-0000-0000-000000000005"


def encode(dtype: DataType, *values: Any) -> list[bytes]:
    return encode_column(pa.array(values, STORED_TYPES[dtype]), dtype)


def test_every_name_of_a_type_is_known() -> None:
    assert set(STORED_TYPES) == {*get_args(ScalarType), *get_args(CompoundType)}


@pytest.mark.parametrize(
    ("dtype", "value", "expected", "read"),
    [
        ("list<int64>", [1, -1], "720d0a0b01ffffffffffffffffff01", [1, -1]),
        ("list<int32>", [300], "6a040a02ac02", [300]),
        ("list<int64>", [], "7200", []),
        ("list<float64>", [-0.0], "7a0a0a080000000000000080", [-0.0]),
        ("list<float32>", [1.0, 1.5], "82010a0a080000803f0000c03f", [1.0, 1.5]),
        ("list<bool>", [True, None], "8a01040a020100", [True, False]),
        ("list<string>", ["é", None, ""], "62080a02c3a90a000a00", ["é", "", ""]),
        ("list<bytes>", [b"\x00", None], "5a050a01000a00", [b"\x00", b""]),
        ("list<json>", ["[1]", None], "8a020b0a035b315d0a046e756c6c", [[1], None]),
        ("set<int64>", [5, 5], "ca01030a0105", {5}),
        ("set<string>", ["a", "a"], "ba01030a0161", {"a"}),
        ("list<list<int64>>", [[1, 2], [], None], "d2020c0a0672040a0201020a000a00", [[1, 2], None, None]),
        ("set<list<string>>", [["a"]], "da02070a0562030a0161", [["a"]]),
        ("uuid", FIVE, "a20224" + FIVE.encode().hex(), UUID(FIVE)),
        ("decimal", "1.50", "e20204312e3530", Decimal("1.50")),
        ("json", '{"a": 1}', "8202087b2261223a20317d", {"a": 1}),
    ],
)
def test_a_value_has_these_very_bytes(dtype: DataType, value: Any, expected: str, read: Any) -> None:
    (encoded,) = encode(dtype, value)

    assert encoded.hex() == expected
    assert repr(decode_value(encoded, dtype)) == repr(read)


@pytest.mark.parametrize("dtype", get_args(CompoundType))
def test_null_is_no_bytes_in_any_place(dtype: DataType) -> None:
    column = pa.array([None, None], STORED_TYPES[dtype])

    assert encode_column(column, dtype) == [b"", b""]
    assert encode_column(column.slice(0, 0), dtype) == []
    assert decode_value(b"", dtype) is None


def test_feast_rounds_a_listed_timestamp_towards_zero_and_any_other_down() -> None:
    before, after = from_micros(-1_500_000), from_micros(1_500_000)
    one, two = from_micros(1_000_000), from_micros(-2_000_000)

    assert decode_value(encode("list<timestamp>", [before, None, after])[0], "list<timestamp>") == [
        from_micros(-1_000_000),
        None,
        one,
    ]
    assert decode_value(encode("set<timestamp>", [before, after])[0], "set<timestamp>") == {two, one}
    assert decode_value(encode("list<list<timestamp>>", [[before, None]])[0], "list<list<timestamp>>") == [[two, None]]
    assert decode_value(encode("timestamp", before)[0], "timestamp") == two


def test_nan_in_a_list_is_kept_and_a_null_becomes_one() -> None:
    (encoded,) = encode("list<float64>", [1.0, float("nan"), None])

    assert repr(decode_value(encoded, "list<float64>")) == "[1.0, nan, nan]"


@pytest.mark.parametrize("spelling", [pa.list_, pa.large_list, lambda item: pa.list_(item, 2)])
def test_a_list_in_any_spelling_of_arrows_and_any_slice_has_the_same_bytes(spelling: Any) -> None:
    rows = [[1, 2], None, [3, 4], [5, 6]]
    column = pa.array(rows, spelling(pa.field("element", pa.int64()))).slice(1, 2)

    assert plain(column.type) == STORED_TYPES["list<int64>"]
    assert encode_column(column, "list<int64>") == [b"", encode("list<int64>", [3, 4])[0]]
    assert encode_column(column, "set<int64>") == [b"", encode("set<int64>", [3, 4])[0]]


def test_what_lies_under_a_null_list_is_not_stored() -> None:
    hidden = pa.ListArray.from_arrays([0, 2, 3], [1, 2, 3], mask=pa.array([True, False]))

    assert encode_column(hidden, "list<int64>") == [b"", encode("list<int64>", [3])[0]]
    assert encode_column(hidden, "set<int64>") == [b"", encode("set<int64>", [3])[0]]


@pytest.mark.parametrize(
    ("dtype", "value", "match"),
    [
        ("list<int64>", [1, None], "1 nulls among the int64s of a list"),
        ("list<uuid>", [FIVE, None], "among the uuids of a list"),
        ("list<decimal>", [None], "among the decimals of a list"),
        ("set<string>", ["a", None], "among the strings of a set"),
        ("set<int32>", [None], "among the int32s of a set"),
        ("list<list<string>>", [["a", None]], "among the strings of a nested list"),
        ("list<list<bool>>", [[None]], "among the bools of a nested list"),
        ("uuid", "five", "'five' is no uuid"),
        ("list<time_uuid>", [FIVE, ""], "'' is no time_uuid"),
        ("decimal", "1,5", "'1,5' is no decimal"),
        ("json", "", "'' is no json"),
        ("list<json>", ["{"], "'{' is no json"),
    ],
)
def test_what_feast_could_not_store_or_not_read_again_is_refused(dtype: DataType, value: Any, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        encode(dtype, value)


@pytest.mark.parametrize("micros", [-62_135_596_800_000_001, 253_402_300_799_000_001])
def test_a_listed_timestamp_that_python_might_not_hold_is_refused(micros: int) -> None:
    column = pa.array([[micros]], pa.list_(pa.int64())).cast(STORED_TYPES["list<timestamp>"])

    with pytest.raises(BadInput, match="years 1 to 9999"):
        encode_column(column, "list<timestamp>")


def test_nanoseconds_are_refused_for_feast_stores_them_in_a_list_as_if_they_were_seconds() -> None:
    view = make_view("v", {"times": "list<timestamp>"})
    rows = make_rows(view, (1, [datetime(2018, 6, 1, tzinfo=UTC)], NOON_US, NOON_US))
    nanos = rows.set_column(1, "times", rows["times"].cast(pa.list_(pa.timestamp("ns", "UTC"))))

    RowLayout("p", view).require(rows)
    with pytest.raises(SchemaDrift, match=r"times as list<.*timestamp\[ns, tz=UTC\]>, declared list<.*timestamp\[us"):
        RowLayout("p", view).require(nanos)


@pytest.mark.parametrize(
    ("dtype", "data"),
    [
        ("list<int64>", "7a00"),
        ("list<int64>", "7201"),
        ("list<int64>", "720300"),
        ("list<int64>", "72020a01"),
        ("list<int64>", "72030a0180"),
        ("list<int64>", "72020801"),
        ("list<int32>", "6a070a05ffffffff7f"),
        ("list<float64>", "7a060a0400000000"),
        ("list<float32>", "8201030a0100"),
        ("list<string>", "62030a02ff"),
        ("list<string>", "62030a01ff"),
        ("list<string>", "62020801"),
        ("list<list<int64>>", "d202040a027a00"),
        ("uuid", "a2020131"),
        ("decimal", "e2020178"),
        ("json", "8202017b"),
        ("list<decimal>", "ea02020a00"),
    ],
)
def test_bytes_that_are_no_such_value_are_refused(dtype: DataType, data: str) -> None:
    with pytest.raises(SchemaDrift, match=f"no {dtype}"):
        decode_value(bytes.fromhex(data), dtype)


@given(st.sampled_from(sorted(STORED_TYPES)), st.binary(min_size=1, max_size=40), st.data())
def test_damage_is_refused_or_read_but_never_anything_else(dtype: DataType, noise: bytes, data: st.DataObject) -> None:
    whole = {
        "list<list<int64>>": [[1, 300], []],
        "list<string>": ["a", "bc"],
        "list<float64>": [1.0, 2.0],
        "json": "[1]",
    }
    damaged = encode(dtype, whole[dtype])[0] if dtype in whole else b""
    cut = data.draw(st.integers(0, len(damaged)))

    with suppress(SchemaDrift):
        decode_value(damaged[:cut] + noise, dtype)


def test_a_key_of_bytes_or_a_timestamp_has_these_very_bytes() -> None:
    keys = EntityKeys("p", make_view(join_keys={"b": "bytes", "t": "timestamp"}).join_keys)

    (key,) = keys.encode({"b": [b"\xff\x00"], "t": [from_micros(-1)]})

    names = "02000000" + "0200000001000000" + "62" + "0200000001000000" + "74"
    assert key.hex() == names + "0100000002000000" + "ff00" + "0800000008000000" + "ff" * 8 + "70"


@pytest.mark.parametrize("value", [datetime(2018, 6, 1), np.datetime64(1, "s"), 1])  # noqa: DTZ001 - it has no zone
def test_a_key_that_is_no_instant_is_refused(value: Any) -> None:
    keys = EntityKeys("p", make_view(join_keys={"t": "timestamp"}).join_keys)

    with pytest.raises(BadInput):
        keys.encode({"t": [value]})


@pytest.mark.parametrize("dtype", sorted(set(STORED_TYPES) - {"int32", "int64", "string", "bytes", "timestamp"}))
def test_no_other_type_names_an_entity(dtype: DataType) -> None:
    with pytest.raises(NotYetSupported, match=f"k is a {dtype}; .*made of int64, int32, string, bytes, timestamp"):
        EntityKeys("p", make_view(join_keys={"k": dtype}).join_keys)
