"""Our bytes against Feast's own: single values, keys and fields, and a stock `FeatureStore` on the other side, both ways.

The only module here that imports Feast: it takes four seconds.
"""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client  # noqa: F401 - before Feast, which otherwise turns this process to multiprocess metrics
import pyarrow as pa
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from stored_rows import EVERY_TYPE, HOUR_US, NOON_US, PROJECT, make_contract, make_rows, make_view

from lockstep.clock import from_micros, to_micros
from lockstep.contract import View
from lockstep.local import LocalRedis
from lockstep.online.layout import (
    EntityKeys,
    decode_event,
    encode_events,
    field_of,
    fields_of,
    pair_field,
)
from lockstep.online.reader import read_online
from lockstep.online.values import decode_value, encode_column
from lockstep.online.writer import write_rows
from lockstep.settings import Settings
from lockstep.views.declare import ARROW_TYPES, DataType

with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
    warnings.simplefilter("ignore")  # Feast's dependencies warn while they are imported
    patch.setattr(os, "environ", os.environ.copy())  # Feast sets PROMETHEUS_MULTIPROCESS_DIR for every child process
    import feast
    from feast import types as feast_types
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.infra.online_stores.helpers import _mmh3, _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values
    from google.protobuf.timestamp_pb2 import Timestamp

FEAST_TYPES: Mapping[DataType, Any] = {
    "bool": feast_types.Bool,
    "int32": feast_types.Int32,
    "int64": feast_types.Int64,
    "float32": feast_types.Float32,
    "float64": feast_types.Float64,
    "string": feast_types.String,
    "bytes": feast_types.Bytes,
    "timestamp": feast_types.UnixTimestamp,
    "list<int64>": feast_types.Array(feast_types.Int64),
    "list<float32>": feast_types.Array(feast_types.Float32),
    "list<string>": feast_types.Array(feast_types.String),
    "list<timestamp>": feast_types.Array(feast_types.UnixTimestamp),
    "list<bool>": feast_types.Array(feast_types.Bool),
    "set<int64>": feast_types.Set(feast_types.Int64),
    "list<list<int64>>": feast_types.Array(feast_types.Array(feast_types.Int64)),
    "uuid": feast_types.Uuid,
    "decimal": feast_types.Decimal,
    "json": feast_types.Json,
}
INT32, INT64 = st.integers(-(1 << 31), (1 << 31) - 1), st.integers(-(1 << 63), (1 << 63) - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
VALUES: Mapping[DataType, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int32": INT32 | st.sampled_from([-(1 << 31), (1 << 31) - 1]),
    "int64": INT64 | st.sampled_from([-(1 << 63), (1 << 63) - 1, 9_007_199_254_740_993]),
    "float32": st.floats(width=32),
    "float64": st.floats(),
    "string": TEXT,
    "bytes": st.binary(max_size=200),
    "timestamp": st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
}
# Feast takes a column of nothing but empty bytes for a column of nulls; with one other value in it, it does not.
FIRST: Mapping[DataType, list[Any]] = {"bytes": [b"\x00"]}


def to_feast(values: list[Any], dtype: DataType) -> list[bytes]:
    """What Feast makes of a column."""
    kind = FEAST_TYPES[dtype].to_value_type()
    # Its materialization hands over what Arrow's to_numpy gives: timestamps as datetime64.
    given_values = np.array(values, "datetime64[us]") if dtype == "timestamp" else values
    return [value.SerializeToString() for value in python_values_to_proto_values(given_values, kind)]


@pytest.mark.parametrize("dtype", ARROW_TYPES)
@given(st.data())
def test_values_have_feasts_own_bytes(dtype: DataType, data: st.DataObject) -> None:
    strategy = VALUES[dtype] if dtype == "timestamp" else st.none() | VALUES[dtype]
    values = FIRST.get(dtype, []) + data.draw(st.lists(strategy, max_size=8))
    column = pa.array(values, pa.int64() if dtype == "timestamp" else ARROW_TYPES[dtype]).cast(ARROW_TYPES[dtype])

    assert encode_column(column, dtype) == to_feast(values, dtype)


@pytest.mark.parametrize("dtype", ARROW_TYPES)
@given(st.data())
def test_feasts_bytes_are_read_as_feast_reads_them(dtype: DataType, data: st.DataObject) -> None:
    message = Value()
    field = {"float64": "double_val", "float32": "float_val", "timestamp": "unix_timestamp_val"}
    value = data.draw(VALUES[dtype])
    setattr(message, field.get(dtype, f"{dtype}_val"), value // 1_000_000 if dtype == "timestamp" else value)

    ours, theirs = decode_value(message.SerializeToString(), dtype), feast_value_type_to_python_type(message)

    assert repr(ours) == repr(theirs)


def test_nulls_are_feasts_nulls() -> None:
    assert to_feast([None, 1.0, float("nan")], "float64") == encode_column(
        pa.array([None, 1.0, float("nan")]), "float64"
    )
    # But for a timestamp, where Feast's materialization stores NumPy's NaT. Both sides read either as null.
    (nat,) = to_feast([None], "timestamp")
    assert nat == Value(unix_timestamp_val=-(1 << 63)).SerializeToString()
    assert decode_value(nat, "timestamp") is None
    assert feast_value_type_to_python_type(Value.FromString(nat)) is None
    assert feast_value_type_to_python_type(Value.FromString(b"")) is None


PARTS = st.one_of(
    st.tuples(st.just("int64"), INT64),
    st.tuples(st.just("int32"), INT32),
    st.tuples(st.just("string"), TEXT),
    st.tuples(st.just("bytes"), VALUES["bytes"]),
    st.tuples(st.just("timestamp"), VALUES["timestamp"].map(from_micros)),
)


def key_value(dtype: DataType, value: Any) -> Value:
    """What Feast's materialization makes of one value of a join key."""
    if dtype == "timestamp":
        return Value.FromString(to_feast([to_micros(value)], dtype)[0])
    return Value(**{f"{dtype}_val": value})


@given(st.dictionaries(st.text(min_size=1, max_size=20), PARTS, min_size=1, max_size=4), TEXT)
def test_entity_keys_have_feasts_own_bytes(parts: dict[str, tuple[DataType, Any]], project: str) -> None:
    view = make_view(join_keys={name: dtype for name, (dtype, _) in parts.items()})
    proto = EntityKey(join_keys=list(parts), entity_values=[key_value(*part) for part in parts.values()])

    (key,) = EntityKeys(project, view.join_keys).encode({name: [value] for name, (_, value) in parts.items()})

    assert key == _redis_key(project, proto, entity_key_serialization_version=3)
    assert key == serialize_entity_key(proto, entity_key_serialization_version=3) + project.encode()


@pytest.mark.parametrize(
    "value", [Value(bool_val=True), Value(double_val=1.0), Value(uuid_val="5"), Value(decimal_val="5"), Value()]
)
def test_of_any_other_type_feast_makes_no_entity_key_either(value: Value) -> None:
    with pytest.raises(ValueError, match="not supported"):
        serialize_entity_key(EntityKey(join_keys=["k"], entity_values=[value]), entity_key_serialization_version=3)


@given(st.text(), st.text())
def test_fields_are_feasts_own(view: str, feature: str) -> None:
    assert field_of(view, feature) == _mmh3(f"{view}:{feature}")


@given(st.integers(-(1 << 53), 1 << 53))
def test_event_times_have_protobufs_own_bytes(event: int) -> None:
    theirs = Timestamp()
    theirs.FromMicroseconds(event)

    (ours,) = encode_events(np.array([event]))

    assert ours == theirs.SerializeToString()
    assert decode_event(theirs.SerializeToString()) == event


COMPOUNDS: Mapping[DataType, Any] = {
    "list<int64>": [9_007_199_254_740_993, -1],
    "list<float32>": [0.5, -0.0],
    "list<string>": ["Käse", ""],
    "list<timestamp>": [from_micros(NOON_US)],
    "list<bool>": [True, False],
    "set<int64>": [3, 2, 3],
    "list<list<int64>>": [[1, 2], [3]],
    "uuid": "00000000-0000-0000-0000-000000000005",
    "decimal": "1.50",
    "json": '{"a": [1, null]}',
}
EVERY = make_view("every", EVERY_TYPE, join_keys={"customer_id": "int64", "shop": "string"})
COMPOUND = make_view(
    "compound", {name.replace("<", "_").strip(">"): name for name in COMPOUNDS}, join_keys={"id": "bytes"}
)
SPEND = make_view("spend", {"n": "int64", "mean": "float64"}, join_keys={"customer_id": "int64"})
SECOND = from_micros(NOON_US)
COMPOUND_ROWS = make_rows(
    COMPOUND,
    (b"\xff\x00", *COMPOUNDS.values(), NOON_US, NOON_US),
    (b"k", *([] if name.startswith(("list", "set")) else None for name in COMPOUNDS), NOON_US, NOON_US),
    (b"\n", *(None for _ in COMPOUNDS), NOON_US, NOON_US),
)
ROWS = make_rows(
    EVERY,
    (1, "Käse", True, -5, 9_007_199_254_740_993, 0.1, -0.1, "ß", b"\x00", SECOND, NOON_US + 1, NOON_US),
    (-(1 << 63), "", False, 0, -(1 << 63), 0.0, 1e300, "", b"", SECOND, NOON_US, NOON_US),
)


def feast_objects(view: View, folder: Path) -> list[feast.Entity | feast.FeatureView]:
    source = feast.FileSource(
        name=view.name,
        path=str(folder / f"{view.name}.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    entities = [
        feast.Entity(name=key.name, join_keys=[key.name], value_type=FEAST_TYPES[key.dtype].to_value_type())
        for key in view.join_keys
    ]
    fields = [feast.Field(name=c.name, dtype=FEAST_TYPES[c.dtype]) for c in (*view.join_keys, *view.columns)]
    return [*entities, feast.FeatureView(name=view.name, entities=entities, schema=fields, source=source)]


@pytest.fixture(scope="module")
def stock(server: LocalRedis, tmp_path_factory: pytest.TempPathFactory) -> feast.FeatureStore:
    """A stock Feast with a SQL registry and a Redis online store, to which all views are applied."""
    folder = tmp_path_factory.mktemp("feast")
    config = feast.RepoConfig(
        project=PROJECT,
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{folder}/registry.db"},
        online_store={"type": "redis", "connection_string": f"127.0.0.1:{server.port}"},
        offline_store={"type": "duckdb"},
        entity_key_serialization_version=3,
    )
    store = feast.FeatureStore(config=config)
    for view in (EVERY, COMPOUND, SPEND):
        store.apply(feast_objects(view, folder))
    return store


def test_a_stock_feature_store_reads_what_we_wrote(stock: feast.FeatureStore, store: redis.Redis) -> None:
    write_rows(store, PROJECT, EVERY, ROWS)
    write_rows(store, PROJECT, SPEND, make_rows(SPEND, (1, 7, 2.5, NOON_US, 5)))
    entities = [{"customer_id": 1, "shop": "Käse"}, {"customer_id": -(1 << 63), "shop": ""}]
    features = [f"every:{name}" for name in EVERY_TYPE] + ["spend:n", "spend:mean"]

    answer = stock.get_online_features(features=features, entity_rows=entities).to_dict()

    for name in EVERY_TYPE:
        assert answer[name] == ROWS[name].to_pylist(), name
    assert (answer["n"], answer["mean"]) == ([7, None], [2.5, None])


def test_we_store_the_bytes_a_stock_feature_store_does_and_one_field_more(
    stock: feast.FeatureStore, store: redis.Redis
) -> None:
    stock.write_to_online_store("every", ROWS.to_pandas())
    theirs = {key: store.hgetall(key) for key in store.keys()}  # noqa: SIM118 - a Redis client is no mapping
    store.flushall()
    write_rows(store, PROJECT, EVERY, ROWS)
    ours = {key: store.hgetall(key) for key in store.keys()}  # noqa: SIM118

    assert len(theirs) == 2
    assert all(set(fields) == set(fields_of(EVERY)) for fields in ours.values())
    assert {k: {f: v for f, v in fields.items() if f != pair_field("every")} for k, fields in ours.items()} == theirs


def test_a_stock_feature_store_has_our_bytes_and_values_of_lists_and_texts_with_a_meaning(
    stock: feast.FeatureStore, store: redis.Redis, store_settings: Settings
) -> None:
    features = [f"compound:{column.name}" for column in COMPOUND.columns]
    entities = [{"id": key} for key in COMPOUND_ROWS["id"].to_pylist()]

    stock.write_to_online_store("compound", COMPOUND_ROWS.to_pandas())
    theirs = {key: store.hgetall(key) for key in store.keys()}  # noqa: SIM118
    answer = stock.get_online_features(features=features, entity_rows=entities).to_dict()
    keys = {"id": COMPOUND_ROWS["id"].to_pylist()}
    decoded = read_online(store_settings, make_contract(COMPOUND), keys, [NOON_US] * 3).views["compound"].values
    store.flushall()
    write_rows(store, PROJECT, COMPOUND, COMPOUND_ROWS)
    ours = {key: store.hgetall(key) for key in store.keys()}  # noqa: SIM118

    assert {
        k: {f: v for f, v in fields.items() if f != pair_field("compound")} for k, fields in ours.items()
    } == theirs
    assert stock.get_online_features(features=features, entity_rows=entities).to_dict() == answer
    assert decoded == {column.name: answer[column.name] for column in COMPOUND.columns}
    assert answer["list_string"] == [["Käse", ""], [], None]


def test_we_read_what_a_stock_feature_store_wrote_with_created_unknown(
    stock: feast.FeatureStore, store: redis.Redis, store_settings: Settings
) -> None:
    stock.write_to_online_store("every", ROWS.to_pandas())
    entities = {name: ROWS[name].to_pylist() for name in ("customer_id", "shop")}

    reading = read_online(store_settings, make_contract(EVERY, SPEND), entities, [NOON_US] * 2)
    every = reading.views["every"]

    assert every.status == ["present", "present"]
    assert every.event_us == [NOON_US + 1, NOON_US]
    assert every.created_us == [-1, -1]
    assert every.values == {name: ROWS[name].to_pylist() for name in EVERY_TYPE}
    assert reading.views["spend"].status == ["missing", "missing"]


def test_a_stock_write_between_two_of_ours_takes_its_place_by_event_time(
    stock: feast.FeatureStore, store: redis.Redis, store_settings: Settings
) -> None:
    def spend(n: int, event: int, created: int) -> pa.Table:
        return make_rows(SPEND, (1, n, n / 2, event, created))

    def read() -> tuple[Any, ...]:
        found = read_online(store_settings, make_contract(SPEND), {"customer_id": [1]}, [NOON_US]).views["spend"]
        return found.values["n"][0], found.event_us[0], found.created_us[0]

    write_rows(store, PROJECT, SPEND, spend(1, NOON_US, 5))
    stock.write_to_online_store("spend", spend(2, NOON_US, 9).to_pandas())
    assert read() == (1, NOON_US, 5)  # Feast drops a correction of the same event
    stock.write_to_online_store("spend", spend(3, NOON_US + HOUR_US, 9).to_pandas())
    assert read() == (3, NOON_US + HOUR_US, -1)
    assert write_rows(store, PROJECT, SPEND, spend(1, NOON_US, 5)).rejected == 1
    assert write_rows(store, PROJECT, SPEND, spend(4, NOON_US + HOUR_US, 0)).accepted == 1
    assert read() == (4, NOON_US + HOUR_US, 0)


def test_feasts_own_missing_and_null_are_those_we_tell_apart(
    stock: feast.FeatureStore, store: redis.Redis, store_settings: Settings
) -> None:
    write_rows(store, PROJECT, SPEND, make_rows(SPEND, (1, None, float("nan"), NOON_US, 5)))
    rows = [{"customer_id": 1}, {"customer_id": 2}]

    theirs = stock.get_online_features(features=["spend:n", "spend:mean"], entity_rows=rows).to_dict()
    ours = read_online(store_settings, make_contract(SPEND), {"customer_id": [1, 2]}, [NOON_US] * 2).views["spend"]

    assert theirs["n"] == theirs["mean"] == [None, None]
    assert ours.usable("n") == ours.usable("mean") == [None, None]
    assert ours.status == ["present", "missing"]
