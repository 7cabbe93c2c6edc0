"""Random rows of every type and every kind of key: what stock Feast stores of them and what we do, byte for byte, both ways.

Feast's side is its own materialization: `_convert_arrow_to_proto`, which all its engines go through, then
`RedisOnlineStore.online_write_batch`; and `online_read`.
"""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import prometheus_client  # noqa: F401 - before Feast, which otherwise turns this process to multiprocess metrics
import pyarrow as pa
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_rows import HOUR_US, NOON_US, PROJECT, make_contract, make_rows, make_view

from lockstep.clock import from_micros
from lockstep.contract import View
from lockstep.errors import NotYetSupported
from lockstep.local import LocalRedis
from lockstep.online.layout import pair_field
from lockstep.online.reader import read_online
from lockstep.online.stored_types import STORED_TYPES, stored_type
from lockstep.online.values import decode_value, encode_column
from lockstep.online.writer import write_rows
from lockstep.settings import Settings
from lockstep.views.declare import DataType

with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
    warnings.simplefilter("ignore")  # Feast's dependencies warn while they are imported
    patch.setattr(os, "environ", os.environ.copy())  # Feast sets PROMETHEUS_MULTIPROCESS_DIR for every child process
    import feast
    from feast import types as feast_types
    from feast.infra.online_stores.redis import RedisOnlineStore
    from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values
    from feast.utils import _convert_arrow_to_proto
    from feast.value_type import ValueType

THEIRS = "theirs"
SCALARS: Mapping[str, feast_types.PrimitiveFeastType] = {
    "bool": feast_types.Bool,
    "int32": feast_types.Int32,
    "int64": feast_types.Int64,
    "float32": feast_types.Float32,
    "float64": feast_types.Float64,
    "string": feast_types.String,
    "bytes": feast_types.Bytes,
    "timestamp": feast_types.UnixTimestamp,
    "uuid": feast_types.Uuid,
    "time_uuid": feast_types.TimeUuid,
    "decimal": feast_types.Decimal,
    "json": feast_types.Json,
}
FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_000_000


def feast_type(dtype: str) -> Any:
    """Feast's own type of one of ours."""
    for prefix, collection in (("list<", feast_types.Array), ("set<", feast_types.Set)):
        if dtype.startswith(prefix):
            return collection(feast_type(dtype.removeprefix(prefix).removesuffix(">")))
    return SCALARS[dtype]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1) | st.sampled_from([-(1 << 63), (1 << 63) - 1, 9_007_199_254_740_993])
TIMES = st.integers(FIRST_US, LAST_US) | st.integers(-2_000_000, 2_000_000)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
UUIDS = st.uuids().map(str) | st.uuids().map(lambda value: value.hex.upper())
VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int32": st.integers(-(1 << 31), (1 << 31) - 1) | st.sampled_from([-(1 << 31), (1 << 31) - 1]),
    "int64": NUMBERS,
    "float32": st.floats(width=32) | st.just(-0.0),
    "float64": st.floats() | st.just(-0.0),
    "string": TEXT,
    "bytes": st.binary(max_size=200),
    "timestamp": TIMES.map(from_micros),
    "uuid": UUIDS,
    "time_uuid": UUIDS,
    "decimal": st.decimals(allow_nan=False).map(str),
    "json": JSON.map(json.dumps),
}
# Where Feast stores a null among the items, and can read it again.
NULLS_IN = {
    "list": {"bytes", "string", "bool", "float32", "float64", "timestamp", "json"},
    "set": {"bool"},  # and of NaN and NaT, whose places in a set follow from their addresses
    "nested": {"float32", "float64", "timestamp"},
}


def items(item: str, kind: str) -> st.SearchStrategy[list[Any]]:
    values = VALUES[item].filter(lambda value: value == value) if kind == "set" else VALUES[item]
    return st.lists(st.none() | values if item in NULLS_IN[kind] else values, max_size=6)


def column(dtype: str, rows: int) -> st.SearchStrategy[list[Any]]:
    """Columns of which Feast loses nothing that depends on what else is in the batch."""
    item = dtype.rsplit("<", 1)[-1].rstrip(">")
    if dtype.endswith(">>"):
        return st.lists(
            st.none() | st.lists(st.none() | items(item, "nested"), max_size=4), min_size=rows, max_size=rows
        )
    if dtype.endswith(">"):
        return st.lists(st.none() | items(item, dtype.split("<", maxsplit=1)[0]), min_size=rows, max_size=rows)
    values = VALUES[dtype]
    if dtype == "bytes":  # it takes a column of nothing but empty bytes for a column of nulls
        values = st.binary(min_size=1, max_size=200)
    if dtype == "timestamp":  # it stores a null as NumPy's NaT
        return st.lists(values, min_size=rows, max_size=rows)
    full = st.lists(values, min_size=rows, max_size=rows)
    if dtype == "int64":  # it makes doubles of integers beside a null
        values = st.integers(-(1 << 53), 1 << 53)
    return full | st.lists(st.none() | values, min_size=rows, max_size=rows)


KEYS: Mapping[str, st.SearchStrategy[Any]] = {
    "int32": VALUES["int32"],
    "int64": NUMBERS,
    "string": TEXT,
    "bytes": st.binary(min_size=1, max_size=20),
    "timestamp": TIMES.map(from_micros),
}


@dataclass(frozen=True)
class Case:
    view: View
    rows: pa.Table


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A view of one to three keys and one to six columns, with up to three rows of different keys."""
    join_keys = draw(st.dictionaries(st.sampled_from("kKäz_"), st.sampled_from(sorted(KEYS)), min_size=1, max_size=3))
    columns = draw(
        st.dictionaries(
            st.text("abcdef", min_size=2, max_size=8), st.sampled_from(sorted(STORED_TYPES)), min_size=1, max_size=6
        )
    )
    view = make_view("every", columns, join_keys=join_keys)

    def stored(key: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value.replace(microsecond=0) if isinstance(value, datetime) else value for value in key)

    keys = draw(
        st.lists(st.tuples(*(KEYS[key.dtype] for key in view.join_keys)), min_size=1, max_size=3, unique_by=stored)
    )
    values = [draw(column(c.dtype, len(keys))) for c in view.columns]
    events = [NOON_US + draw(st.integers(-HOUR_US, HOUR_US)) for _ in keys]
    rows = [(*key, *row, event, NOON_US) for key, *row, event in zip(keys, *values, events, strict=True)]
    return Case(view, make_rows(view, *rows))


@pytest.fixture(scope="module")
def config(server: LocalRedis, tmp_path_factory: pytest.TempPathFactory) -> feast.RepoConfig:
    return feast.RepoConfig(
        project=THEIRS,
        provider="local",
        registry=str(tmp_path_factory.mktemp("feast") / "registry.db"),
        online_store={"type": "redis", "connection_string": f"127.0.0.1:{server.port}"},
        entity_key_serialization_version=3,
    )


def feature_view(view: View) -> feast.FeatureView:
    entities = [
        feast.Entity(name=key.name, join_keys=[key.name], value_type=feast_type(key.dtype).to_value_type())
        for key in view.join_keys
    ]
    source = feast.FileSource(
        path="unread.parquet", timestamp_field="event_timestamp", created_timestamp_column="created_timestamp"
    )
    fields = [feast.Field(name=c.name, dtype=feast_type(c.dtype)) for c in (*view.join_keys, *view.columns)]
    return feast.FeatureView(name=view.name, entities=entities, schema=fields, source=source)


def feast_rows(view: View, rows: pa.Table) -> list[Any]:
    """What Feast's materialization makes of rows."""
    keys = {key.name: feast_type(key.dtype).to_value_type() for key in view.join_keys}
    return _convert_arrow_to_proto(rows.combine_chunks(), feature_view(view), keys)


def same(ours: Any, theirs: Any) -> bool:
    """Equal to the last bit, NaN and zero's sign included."""
    if isinstance(ours, (set, frozenset)):
        return type(theirs) is type(ours) and sorted(map(repr, ours)) == sorted(map(repr, theirs))
    if isinstance(ours, list):
        return isinstance(theirs, list) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    return repr(ours) == repr(theirs)


@pytest.mark.usefixtures("store")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(case=cases())
def test_stock_feast_and_we_store_the_same_bytes_and_read_each_others(
    config: feast.RepoConfig, store: redis.Redis, store_settings: Settings, case: Case
) -> None:
    store.flushall()
    view, online, of_feast = case.view, RedisOnlineStore(), feature_view(case.view)
    data = feast_rows(view, case.rows)

    online.online_write_batch(config, of_feast, data, progress=None)
    write_rows(store, PROJECT, view, case.rows)

    stored = {key: store.hgetall(key) for key in store.keys()}  # noqa: SIM118 - a Redis client is no mapping
    theirs = {key.removesuffix(THEIRS.encode()): v for key, v in stored.items() if key.endswith(THEIRS.encode())}
    ours = {key.removesuffix(PROJECT.encode()): v for key, v in stored.items() if key.endswith(PROJECT.encode())}
    assert len(ours) == case.rows.num_rows
    assert all(fields.pop(pair_field(view.name)) for fields in ours.values())
    assert ours == theirs

    names = [c.name for c in view.columns]
    read = {
        project: [
            {name: feast_value_type_to_python_type(value) for name, value in values.items()}
            for _, values in online.online_read(
                config.model_copy(update={"project": project}),
                of_feast,
                [key for key, *_ in data],
                list(names),  # it appends to them
            )
        ]
        for project in (PROJECT, THEIRS)
    }
    contract = make_contract(view).model_copy(update={"project": THEIRS})
    entities = {key.name: case.rows[key.name].to_pylist() for key in view.join_keys}
    decoded = read_online(store_settings, contract, entities, [NOON_US] * case.rows.num_rows).views[view.name].values
    for name in names:
        by_feast = [row[name] for row in read[THEIRS]]
        assert same([row[name] for row in read[PROJECT]], by_feast), name
        assert same(decoded[name], by_feast), name


@pytest.mark.parametrize(
    ("dtype", "rows"),
    [
        ("set<float64>", [[1.0, None, float("nan"), -0.0, 0.0], [None], None, []]),
        ("set<float32>", [[1.0, None, float("nan")], []]),
        ("set<timestamp>", [[from_micros(-1), None, from_micros(0), from_micros(1)], None]),
    ],
)
def test_a_set_with_nan_or_null_has_feasts_items_in_some_order(dtype: DataType, rows: list[Any]) -> None:
    array = pa.array(rows, STORED_TYPES[dtype])

    theirs = python_values_to_proto_values(array.to_numpy(zero_copy_only=False), feast_type(dtype).to_value_type())
    ours = encode_column(array, dtype)

    for mine, their in zip(ours, theirs, strict=True):
        stored = their.SerializeToString()
        assert sorted(mine) == sorted(stored)
        assert same(decode_value(mine, dtype), feast_value_type_to_python_type(their))
        assert same(decode_value(stored, dtype), feast_value_type_to_python_type(their))


REFUSED = {"UNKNOWN", "NULL", "MAP", "MAP_LIST", "STRUCT", "STRUCT_LIST", "SCALAR_MAP", "ZONED_TIMESTAMP"}
NESTED = {"VALUE_LIST", "VALUE_SET"}


@pytest.mark.parametrize("value_type", ValueType, ids=lambda value_type: value_type.name)
def test_each_of_feasts_types_has_a_type_of_ours_or_is_refused_by_name(value_type: ValueType) -> None:
    if value_type.name in REFUSED | NESTED:
        with pytest.raises(NotYetSupported, match=value_type.name):
            stored_type(value_type.name)
    else:
        dtype = stored_type(value_type.name)
        assert dtype == "bytes" or feast_type(dtype).to_value_type() == value_type


@pytest.mark.parametrize("item", ["bool", "int32", "int64", "float32", "float64", "string", "bytes", "timestamp"])
def test_lists_of_lists_are_told_by_what_is_inside(item: str) -> None:
    for inner in (feast_types.Array(SCALARS[item]), feast_types.Set(SCALARS[item])):
        name = inner.to_value_type().name
        assert stored_type("VALUE_LIST", name) == f"list<list<{item}>>"
        assert stored_type("VALUE_SET", name) == f"set<list<{item}>>"
    for inner in ("UUID_LIST", "MAP_LIST", "VALUE_LIST", "INT64"):
        with pytest.raises(NotYetSupported, match=f"VALUE_LIST of {inner}"):
            stored_type("VALUE_LIST", inner)


# What Feast 0.67 makes of a type that is refused here. Once it does otherwise, ours can too.
UNSTORABLE: Mapping[str, tuple[Any, pa.Array]] = {
    "map": (feast_types.Map, pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string()))),
    "list of maps": (feast_types.Array(feast_types.Map), pa.array([[{"a": 1}]])),
    "map by number": (feast_types.ScalarMap, pa.array([[(1, "b")]], pa.map_(pa.int64(), pa.string()))),
    "zoned timestamp": (feast_types.ZonedTimestamp, pa.array([0], pa.timestamp("us", "UTC"))),
    "struct with an empty list": (
        feast_types.Struct({"a": feast_types.Array(feast_types.Int64)}),
        pa.array([{"a": []}]),
    ),
    "null in integers": (feast_types.Array(feast_types.Int64), pa.array([[1, None]])),
    "null in a set of texts": (feast_types.Set(feast_types.String), pa.array([["a", None]])),
    "null in a list of lists of texts": (
        feast_types.Array(feast_types.Array(feast_types.String)),
        pa.array([[["a", None]]]),
    ),
    "null in a list of lists of booleans": (
        feast_types.Array(feast_types.Array(feast_types.Bool)),
        pa.array([[[True, None]]]),
    ),
}


@pytest.mark.parametrize("what", UNSTORABLE)
def test_what_we_refuse_feast_cannot_store_either(what: str) -> None:
    kind, array = UNSTORABLE[what]

    with pytest.raises((TypeError, ValueError)):
        python_values_to_proto_values(array.to_numpy(zero_copy_only=False), kind.to_value_type())
