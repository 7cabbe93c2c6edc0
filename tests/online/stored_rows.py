"""Views, contracts and rows that the tests of the online store are made of."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import redis

from lockstep.contract import Column, FeatureContract, TrainingCut, View
from lockstep.online.layout import EntityKeys, encode_events, event_field, field_of
from lockstep.online.stored_types import STORED_TYPES
from lockstep.online.values import encode_column
from lockstep.views.declare import ARROW_TYPES, CREATED_TIMESTAMP, EVENT_TIMESTAMP, DataType

PROJECT = "fraud"
HOUR_US = 3_600_000_000
NOON_US = 1_527_854_400_000_000  # 2018-06-01T12:00:00Z
EVERY_TYPE: Mapping[str, DataType] = {f"a_{dtype}": dtype for dtype in ARROW_TYPES}


def make_view(
    name: str = "spend",
    columns: Mapping[str, DataType] | None = None,
    *,
    join_keys: Mapping[str, DataType] | None = None,
    ttl_us: int = 0,
) -> View:
    """A stored view; one int64 column `n` by customer_id unless said otherwise."""
    return View(
        name=name,
        table=name,
        join_keys=tuple(Column(name=n, dtype=d) for n, d in sorted((join_keys or {"customer_id": "int64"}).items())),
        columns=tuple(Column(name=n, dtype=d) for n, d in (columns or {"n": "int64"}).items()),
        ttl_us=ttl_us,
        every_us=HOUR_US,
        compute_lag_us=0,
        visible_lag_us=0,
        freshness_us=HOUR_US,
        freshness_hard=False,
        owner="tests",
        definition_hash="0" * 64,
    )


def make_contract(*views: View) -> FeatureContract:
    return FeatureContract(
        project=PROJECT,
        feature_service="score",
        join_keys=tuple({k.name: k for v in views for k in v.join_keys}.values()),
        request_inputs=(),
        features=(),
        views=views,
        on_demand=(),
        cut=TrainingCut(tables=(), spine_hash="", known_at=datetime(2018, 6, 1, tzinfo=UTC)),
    )


def make_rows(view: View, *rows: Sequence[Any]) -> pa.Table:
    """Rows of (join keys…, columns…, event_us, created_us)."""
    fields = [pa.field(c.name, STORED_TYPES[c.dtype]) for c in (*view.join_keys, *view.columns)]
    values = list(zip(*rows, strict=True)) or [()] * (len(fields) + 2)
    arrays = [pa.array(column, field.type) for column, field in zip(values[:-2], fields, strict=True)]
    arrays += [pa.array(times, pa.int64()).cast(ARROW_TYPES["timestamp"]) for times in values[-2:]]
    return pa.Table.from_arrays(arrays, names=[f.name for f in fields] + [EVENT_TIMESTAMP, CREATED_TIMESTAMP])


def key_of(view: View, *values: Any) -> bytes:
    """The Redis key of one entity."""
    names = [key.name for key in view.join_keys]
    return EntityKeys(PROJECT, view.join_keys).encode({n: [v] for n, v in zip(names, values, strict=True)})[0]


def write_as_feast(store: redis.Redis, view: View, key: Any, value: int, event_us: int) -> None:
    """What stock Feast sends for a row of one int64 column, having found that it is newer: it knows no created time."""
    (column,) = view.columns
    value_bytes = encode_column(pa.array([value], ARROW_TYPES[column.dtype]), column.dtype)[0]
    event = encode_events(pa.array([event_us], pa.int64()).to_numpy())[0]
    store.hset(
        key_of(view, key), mapping={event_field(view.name): event, field_of(view.name, column.name): value_bytes}
    )
