"""The bytes of single values, without Feast: what is written is read again, and what is no value is refused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_rows import NOON_US, make_view

from lockstep.errors import BadInput, NotYetSupported, SchemaDrift
from lockstep.online.layout import EntityKeys, decode_event, decode_pair, encode_events, require_distinct
from lockstep.online.values import decode_column, decode_value, decode_varint, encode_column, encode_varints
from lockstep.views.declare import ARROW_TYPES, DataType

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


def naive_varint(value: int) -> bytes:
    """Protobuf's own description, byte by byte."""
    rest, encoded = value & 0xFFFF_FFFF_FFFF_FFFF, bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*encoded, rest])


@given(st.lists(INT64 | st.sampled_from([s * (1 << b) + d for b in range(63) for s in (1, -1) for d in (0, -1)])))
def test_varints_are_those_of_the_naive_encoder_and_are_read_again(values: list[int]) -> None:
    encoded = encode_varints(np.array(values, np.int64), b"\x20")

    assert encoded == [b"\x20" + naive_varint(value) for value in values]
    assert [decode_varint(data, 1) for data in encoded] == [
        (value, len(data)) for value, data in zip(values, encoded, strict=True)
    ]


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("bool", False, "3800"),
        ("bool", True, "3801"),
        ("int32", -1, "18ffffffffffffffffff01"),
        ("int64", 300, "20ac02"),
        ("float32", 1.5, "350000c03f"),
        ("float64", -0.0, "290000000000000080"),
        ("float64", float("inf"), "29000000000000f07f"),
        ("string", "", "1200"),
        ("string", "é" * 100, "12c801" + "c3a9" * 100),
        ("bytes", b"\x00", "0a0100"),
        ("timestamp", datetime(1970, 1, 2, tzinfo=UTC), "4080a305"),
    ],
)
def test_a_value_has_these_very_bytes(dtype: DataType, value: Any, expected: str) -> None:
    (encoded,) = encode_column(pa.array([value], ARROW_TYPES[dtype]), dtype)

    assert encoded.hex() == expected
    assert repr(decode_value(encoded, dtype)) == repr(value)


@pytest.mark.parametrize("dtype", ARROW_TYPES)
def test_null_is_no_bytes_and_a_field_that_is_not_there_is_null(dtype: DataType) -> None:
    assert encode_column(pa.array([None, None], ARROW_TYPES[dtype]), dtype) == [b"", b""]
    assert decode_value(b"", dtype) is None
    assert decode_value(None, dtype) is None


@given(st.lists(st.none() | INT64 | st.integers(0, 1 << 15)), st.lists(st.none() | st.text(max_size=200)))
def test_a_column_is_read_in_its_order_with_nulls_in_their_places(numbers: list[Any], texts: list[Any]) -> None:
    assert decode_column(encode_column(pa.array(numbers, pa.int64()), "int64"), "int64") == numbers
    assert decode_column(encode_column(pa.array(texts, pa.string()), "string"), "string") == texts


def test_nan_is_stored_as_null_and_its_neighbours_are_not() -> None:
    column = pa.array([1.0, float("nan"), None, 2.0])

    assert [decode_value(data, "float64") for data in encode_column(column, "float64")] == [1.0, None, None, 2.0]


def test_a_null_beside_it_does_not_cost_an_integer_its_last_digits() -> None:
    column = pa.array([9_007_199_254_740_993, None])

    assert [decode_value(data, "int64") for data in encode_column(column, "int64")] == [9_007_199_254_740_993, None]


def test_a_slice_of_a_column_is_encoded_as_that_slice() -> None:
    column = pa.array([True, None, False, True]).slice(1, 2)

    assert encode_column(column, "bool") == [b"", b"\x38\x00"]


@pytest.mark.parametrize(
    ("dtype", "data"),
    [
        ("float64", "200a"),
        ("float64", "2900"),
        ("float32", "3500"),
        ("int64", "20"),
        ("int64", "2080"),
        ("int64", "200a0b"),
        ("int64", "20ffffffffffffffffff02"),
        ("int32", "188080808080808001"),
        ("string", "1202ff"),
        ("string", "1201ff"),
        ("bytes", "0a8080"),
        ("timestamp", "40ffffffffffffffff7f"),
    ],
)
def test_bytes_that_are_no_such_value_are_refused(dtype: DataType, data: str) -> None:
    with pytest.raises(SchemaDrift, match=f"no {dtype}"):
        decode_value(bytes.fromhex(data), dtype)


def test_a_type_the_layout_does_not_have_is_not_yet_supported() -> None:
    with pytest.raises(NotYetSupported, match="struct"):
        encode_column(pa.array([1]), "struct")  # type: ignore[arg-type]
    with pytest.raises(NotYetSupported, match="struct"):
        decode_value(b"\x20\x01", "struct")  # type: ignore[arg-type]


@given(st.lists(st.integers(-(1 << 53), 1 << 53)))
def test_an_event_time_is_read_as_it_was_written(events: list[int]) -> None:
    assert [decode_event(data) for data in encode_events(np.array(events, np.int64))] == events


def test_an_event_at_the_very_epoch_is_empty_bytes_and_still_an_event() -> None:
    assert encode_events(np.array([0])) == [b""]
    assert decode_event(b"") == 0


@pytest.mark.parametrize("data", ["18", "0880", "ff01"])
def test_an_event_time_that_is_none_is_refused(data: str) -> None:
    with pytest.raises(SchemaDrift, match="event time"):
        decode_event(bytes.fromhex(data))


def test_a_created_time_of_another_event_is_unknown() -> None:
    (event,) = encode_events(np.array([NOON_US]))
    mine, other = np.array([NOON_US, 7]).tobytes(), np.array([NOON_US - 1, 7]).tobytes()

    assert decode_pair(event, mine) == (NOON_US, 7)
    assert decode_pair(event, other) == (NOON_US, -1)
    assert decode_pair(event, None) == (NOON_US, -1)
    with pytest.raises(SchemaDrift, match="8 bytes"):
        decode_pair(event, mine[:8])


@pytest.mark.parametrize("value", [1.0, "1", True, None, np.int64(1), timedelta(1)])
def test_an_entity_key_of_another_type_is_refused(value: object) -> None:
    keys = EntityKeys("p", make_view().join_keys)

    with pytest.raises(BadInput, match=f"customer_id takes int64 .*{type(value).__name__}"):
        keys.encode({"customer_id": [1, value]})


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1])
def test_an_entity_key_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(BadInput, match="does not fit int64"):
        EntityKeys("p", make_view().join_keys).encode({"customer_id": [value]})


def test_a_join_key_that_is_missing_is_named_with_the_one_that_was_given() -> None:
    with pytest.raises(BadInput, match="customer_id is missing") as refused:
        EntityKeys("p", make_view().join_keys).encode({"custmer_id": [1]})

    assert "custmer_id" in refused.value.hint


def test_a_join_key_must_have_a_type_that_can_name_an_entity() -> None:
    with pytest.raises(NotYetSupported, match="float64"):
        EntityKeys("p", make_view(join_keys={"amount": "float64"}).join_keys)


def test_two_features_that_would_overwrite_each_other_are_refused() -> None:
    with pytest.raises(NotYetSupported, match="v:a and v:b have the same field"):
        require_distinct({("v", "a"): b"1234", ("v", "b"): b"1234"})
