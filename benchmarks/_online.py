"""What the benchmarks of reading online share: views of one entity, their rows and epochs, our reader, and Feast's store."""

import asyncio
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import uvloop
import yaml

from lockstep.contract import Column, Feature, FeatureContract, TrainingCut, View
from lockstep.online.epoch import EpochStore, Mark, ViewEpoch
from lockstep.online.reader import OnlineReader, Reading, ReadPlan
from lockstep.online.store import Store, connect_async
from lockstep.online.writer import write_rows
from lockstep.settings import Settings
from lockstep.views.declare import DataType

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Feast's dependencies warn while they are imported
    import feast
    from feast import types as feast_types

PROJECT = "benchmark"
SERVICE = "score"
KEY = Column(name="card_id", dtype="int64")
VIEWS = ("spend", "travel", "online", "night", "cash")
HOUR_US = 3_600_000_000
FEAST_TYPES = {"float64": feast_types.Float64, "int64": feast_types.Int64, "string": feast_types.String}
VALUES: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "float64": lambda random, count: random.gamma(2.0, 40.0, count),
    "int64": lambda random, count: random.integers(0, 200, count),
    "string": lambda random, count: [f"merchant-{n:06}" for n in random.integers(0, 100_000, count)],
}

Request = dict[str, list[int]]


def make_contract(columns: Mapping[str, DataType]) -> FeatureContract:
    """Return a contract of five views of one entity that have these columns each, all of them features."""
    views = tuple(_view(name, columns) for name in VIEWS)
    return FeatureContract(
        project=PROJECT,
        feature_service=SERVICE,
        join_keys=(KEY,),
        request_inputs=(),
        features=tuple(Feature(name=c.name, view=view.name, dtype=c.dtype) for view in views for c in view.columns),
        views=views,
        on_demand=(),
        cut=TrainingCut(tables=(), spine_hash="", known_at=datetime(2018, 6, 1, tzinfo=UTC)),
    )


def _view(name: str, columns: Mapping[str, DataType]) -> View:
    return View(
        name=name,
        table=name,
        join_keys=(KEY,),
        columns=tuple(Column(name=f"{name}_{column}", dtype=dtype) for column, dtype in columns.items()),
        ttl_us=72 * HOUR_US,
        every_us=HOUR_US,
        compute_lag_us=0,
        visible_lag_us=0,
        freshness_us=3 * HOUR_US,
        freshness_hard=False,
        owner="benchmarks",
        definition_hash="0" * 64,
    )


def fill(client: Store, views: Sequence[View], entities: int, watermark_us: int) -> None:
    """Write a row per entity and view, and the epochs of views that are all online up to this time."""
    epochs = EpochStore(client, PROJECT)
    epochs.ensure_incarnation()
    for number, view in enumerate(views):
        random = np.random.default_rng(number)
        event = watermark_us - HOUR_US * random.integers(1, 48, entities)  # ticks, as the materializer writes them
        columns = {
            KEY.name: np.arange(entities),
            **{column.name: VALUES[column.dtype](random, entities) for column in view.columns},
            "event_timestamp": pa.array(event).cast(pa.timestamp("us", "UTC")),
            "created_timestamp": pa.array(event + 60_000_000).cast(pa.timestamp("us", "UTC")),
        }
        write_rows(client, PROJECT, view, pa.table(columns))
        epochs.restore(
            view.name, ViewEpoch(Mark(interval=1, snapshot_id=1 << 60, sequence=1, watermark_us=watermark_us))
        )


def draw(count: int, entities: int, stored: int) -> list[Request]:
    """Return requests for so many different entities each, out of so many that are stored."""
    random = np.random.default_rng(entities)
    return [{KEY.name: random.choice(stored, entities, replace=False).tolist()} for _ in range(count)]


class OurReader:
    """Our reader, with one connection in one event loop; `close` it."""

    def __init__(self, settings: Settings, contract: FeatureContract, request_time_us: int) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._time_us = request_time_us
        self._runner.run(self._open(settings, contract))

    async def _open(self, settings: Settings, contract: FeatureContract) -> None:
        self._redis = connect_async(settings)
        self._reader = OnlineReader(self._redis, ReadPlan.compile(contract))

    def values(self, request: Request) -> dict[str, list[Any]]:
        """Return what a request is answered, by feature; the join key among it, as Feast has it."""
        reading: Reading = self._runner.run(self._reader.read(request, [self._time_us] * len(request[KEY.name])))
        return {
            KEY.name: request[KEY.name],
            **{name: view.usable(name) for view in reading.views.values() for name in view.values},
        }

    def send(self, requests: Sequence[Request]) -> list[int]:
        """Answer the requests one after another; return what each took, in nanoseconds."""
        return self._runner.run(self._send(requests))

    async def _send(self, requests: Sequence[Request]) -> list[int]:
        taken: list[int] = []
        times = [self._time_us] * len(requests[0][KEY.name])
        for request in requests:
            start = time.perf_counter_ns()
            await self._reader.read(request, times)
            taken.append(time.perf_counter_ns() - start)
        return taken

    def close(self) -> None:
        """Close the connection and the loop."""
        self._runner.run(self._redis.aclose())
        self._runner.close()


def feast_store(home: Path, port: int, views: Sequence[View]) -> feast.FeatureStore:
    """Return a stock Feast with these views and a service of them, a SQL registry, which it holds in memory, and the Redis here.

    Other processes open it by `home`, too.
    """
    config = {
        "project": PROJECT,
        "provider": "local",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{home}/registry.db"},
        "online_store": {"type": "redis", "connection_string": f"127.0.0.1:{port}"},
        "offline_store": {"type": "duckdb"},
        "entity_key_serialization_version": 3,
    }
    (home / "feature_store.yaml").write_text(yaml.safe_dump(config))
    store = feast.FeatureStore(str(home))
    card = feast.Entity(name=KEY.name, join_keys=[KEY.name], value_type=feast_types.Int64.to_value_type())
    feast_views = [_feast_view(view, card, home) for view in views]
    service = feast.FeatureService(name=SERVICE, features=list(feast_views))
    store.apply([card, *feast_views, service])
    return store


def _feast_view(view: View, card: feast.Entity, home: Path) -> feast.FeatureView:
    source = feast.FileSource(
        name=view.name, path=str(home / f"{view.name}.parquet"), timestamp_field="event_timestamp"
    )
    schema = [feast.Field(name=c.name, dtype=FEAST_TYPES[c.dtype]) for c in (KEY, *view.columns)]
    return feast.FeatureView(name=view.name, entities=[card], schema=schema, source=source)
