"""What we read is what Feast reads: 1,000 requests, asked of our reader, of `get_online_features` and of Feast's feature server.

All of them look at rows that our writer wrote. Values are equal to the last bit, with these exceptions, each of which is held
to be just what it is here, so that a Feast that changes is noticed (0.67):

* ttl: both of Feast's go on serving a row past its view's ttl, and call it PRESENT. We say *stale*, and a model gets no value.
* missing: of a key that was never written both say PRESENT, null, and 1970-01-01 as the event time. We say *missing*.
* int64: the feature server writes it as a JSON number with all digits, not as protobuf's text: exact for those who read it as
  an integer, and another number above 2**53 for those who read numbers as doubles, as JavaScript does. `to_df()` makes float64
  of an int64 column with a null in it, which loses the same digits; `to_dict()` does not.
* NaN and the infinities: the feature server writes them as the texts "NaN", "Infinity" and "-Infinity". A NaN is there only if
  another writer wrote it: ours stores null for NaN, as Feast's does.

No exception: the feature server writes a float32 as the float64 of the same value (0.10000000149011612, not 0.1), and -0.0 with
its sign. Features made on demand are equal, too, wherever the stored ones that they are made of are.
"""

import asyncio
import json
import os
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import httpx
import numpy as np
import prometheus_client  # noqa: F401 - before Feast, which otherwise turns this process to multiprocess metrics
import pyarrow as pa
import pytest
import redis
import yaml
from feast import FeatureStore
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.Value_pb2 import Value

from feature_repo.definitions import use_case as fraud
from lockstep.clock import parse_time, to_micros
from lockstep.contract import ENTITY_KEY_VERSION, TrainingCut, stored_view
from lockstep.local import LocalRedis
from lockstep.local.child import Child
from lockstep.local.ports import LOOPBACK, free_port, listens
from lockstep.offline.registry import apply_definitions, feature_store, online_store
from lockstep.online.layout import EntityKeys, field_of
from lockstep.online.reader import OnlineReader, Reading, ReadPlan, Status
from lockstep.online.store import connect, connect_async
from lockstep.online.writer import write_rows
from lockstep.serving.features import load_functions
from lockstep.serving.request import Request
from lockstep.serving.vectors import vectors_of
from lockstep.settings import Settings
from lockstep.training.contract import compile_contract
from lockstep.views import FeatureService, latest_view
from lockstep.views.declare import ARROW_TYPES, CREATED_TIMESTAMP, EVENT_TIMESTAMP, DataType, StoredView

PROFILE = fraud.view("customer_profile")
TYPES = latest_view(
    name="customer_types",
    columns={
        "flag": "bool",
        "small": "int32",
        "whole": "int64",
        "single": "float32",
        "number": "float64",
        "text": "string",
    },
    **{name: getattr(PROFILE, name) for name in ("entity", "source", "every", "ttl", "freshness", "owner")},
)
VIEWS = (fraud.view("customer_spend"), fraud.view("terminal_risk"), PROFILE, TYPES)
# A service has no two features of one name, and these two count alike.
STORED = FeatureService(
    "all_stored",
    tuple(
        (view, name) for view in VIEWS for name in view.features if (view.name, name[:5]) != ("terminal_risk", "nb_tx")
    ),
    "tests",
)
USE_CASE = replace(fraud, views=(*fraud.views, TYPES), services=(*fraud.services, STORED))
ON_DEMAND = "fraud_v2"

NOON_US = to_micros(parse_time("2018-06-01T12:00:00Z"))
KNOWN_AT = datetime(2018, 6, 1, tzinfo=UTC)
REQUESTS, KEYS, SEED = 1_000, 200, 7
ON_DEMAND_REQUESTS = 50
PINNED = 1_000  # a customer with values to look at
START_SECONDS = 90.0

NAN, INFINITE = float("nan"), float("inf")
ODD = (1 << 53) + 1  # no double is this
SPECIAL: Mapping[DataType, Sequence[Any]] = {
    "bool": (True, False),
    "int32": (0, -1, (1 << 31) - 1, -(1 << 31)),
    "int64": (0, -1, ODD, -ODD, (1 << 63) - 1, -(1 << 63)),
    "float32": (-0.0, NAN, INFINITE, 2.0**-149, 3.4028234663852886e38),
    "float64": (-0.0, NAN, -INFINITE, 0.1 + 0.2, 5e-324, 1.7976931348623157e308, 3.0),
    "string": ("", "Käse", "NaN", "null", 'a "b"\n', "\U0001f9c0"),
}


def draw(random: Random, view: StoredView, dtype: DataType) -> Any:
    """Return a value; one in eight is null."""
    if random.random() < 1 / 8:
        return None
    if view is TYPES and random.random() < 1 / 2:
        return random.choice(SPECIAL[dtype])
    if dtype == "int64":  # counts and sums, which on-demand functions divide by
        return random.choice((random.randrange(100), random.randrange(1 << 60)))
    ordinary = {"bool": random.random() < 1 / 2, "int32": random.randrange(100), "string": str(random.random())}
    return ordinary.get(dtype, random.random())


def written(random: Random, view: StoredView) -> pa.Table:
    """Return rows of three in four keys; one in four of them is older than the view's ttl, some just by a microsecond."""
    ttl_us = stored_view(view).ttl_us
    keys = [key for key in range(KEYS) if random.random() < 3 / 4]
    fresh, stale = (0, 1, random.randrange(ttl_us), ttl_us), (ttl_us + 1, 10 * ttl_us)
    ages = [random.choice(fresh if random.random() < 3 / 4 else stale) for _ in keys]
    columns = {
        name: pa.array([draw(random, view, dtype) for _ in keys], ARROW_TYPES[dtype])
        for name, dtype in view.features.items()
    }
    events = pa.array([NOON_US - age for age in ages], pa.int64()).cast(ARROW_TYPES["timestamp"])
    times = {EVENT_TIMESTAMP: events, CREATED_TIMESTAMP: events}
    return pa.table({view.entity.join_key: pa.array(keys, ARROW_TYPES[view.entity.dtype]), **columns, **times})


def pinned() -> pa.Table:
    """Return the one row of `customer_types` whose text is looked at."""
    values = {"flag": False, "small": -1, "whole": ODD, "single": 0.1, "number": -0.0, "text": ""}
    columns = {name: pa.array([values[name]], ARROW_TYPES[dtype]) for name, dtype in TYPES.features.items()}
    now = pa.array([NOON_US], pa.int64()).cast(ARROW_TYPES["timestamp"])
    return pa.table({"customer_id": pa.array([PINNED]), **columns, EVENT_TIMESTAMP: now, CREATED_TIMESTAMP: now})


def requests() -> list[dict[str, list[int]]]:
    """Return the requests, of 1 to 5 entities."""
    random = Random(SEED)
    sizes = [random.randint(1, 5) for _ in range(REQUESTS)]
    return [
        {key: [random.randrange(KEYS) for _ in range(size)] for key in ("customer_id", "terminal_id")}
        for size in sizes
    ]


def references(service: str) -> list[str]:
    """Return a service's features; asked for by the service's name, Feast takes three times as long."""
    return [f"{view.name}:{feature}" for view, feature in USE_CASE.service(service).features]


class Said(NamedTuple):
    """What one of Feast's says of a feature, one item an entity."""

    values: list[Any]
    statuses: list[str]
    events_us: list[int]


Answer = Mapping[str, Said]
"""By the feature's full name."""


@dataclass(frozen=True)
class Server:
    """Feast's feature server."""

    client: httpx.Client

    def text(self, service: str, entities: Mapping[str, Sequence[Any]]) -> str:
        asked = {"features": references(service), "entities": entities, "full_feature_names": True}
        return self.client.post("/get-online-features", json=asked).raise_for_status().text

    def ask(self, service: str, entities: Mapping[str, Sequence[Any]]) -> Answer:
        document = json.loads(self.text(service, entities))
        return {
            name: Said(
                found["values"],
                found["statuses"],
                [to_micros(parse_time(event)) for event in found["event_timestamps"]],
            )
            for name, found in zip(document["metadata"]["feature_names"], document["results"], strict=True)
        }


@dataclass(frozen=True)
class Library:
    """`get_online_features` in this process."""

    store: FeatureStore

    def ask(self, service: str, entities: Mapping[str, Sequence[Any]]) -> Answer:
        rows = [dict(zip(entities, row, strict=True)) for row in zip(*entities.values(), strict=True)]
        answer = self.store.get_online_features(references(service), rows, full_feature_names=True)
        values = answer.to_dict()
        return {
            name: Said(
                values[name],
                [FieldStatus.Name(status) for status in found.statuses],
                [event.ToMicroseconds() for event in found.event_timestamps],
            )
            for name, found in zip(answer.proto.metadata.feature_names.val, answer.proto.results, strict=True)
        }


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    """Run `feast serve` on a stock `feature_store.yaml`, and yield a client of it."""
    folder, port = settings.home / "stock", free_port()
    folder.mkdir()
    config = {
        "project": USE_CASE.project,
        "provider": "local",
        "registry": {"registry_type": "sql", "path": settings.registry_url},
        "online_store": online_store(settings),
        "offline_store": {"type": "duckdb"},
        "entity_key_serialization_version": ENTITY_KEY_VERSION,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(config))
    # By default its one worker starts anew after 1,000 requests, and gunicorn leaves a socket in the home directory.
    options = ["--host", LOOPBACK, "--port", str(port), "--no-access-log", "--max-requests", "0"]
    command = [sys.executable, "-m", "feast.cli.cli", "--chdir", str(folder), "serve", *options]
    paths = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH", ""))))
    environment = os.environ | {"HOME": str(folder), "PYTHONPATH": paths}
    server = Child("feast serve", command, settings.home / "logs" / "feast.log", environment)
    try:
        with httpx.Client(base_url=f"http://{LOOPBACK}:{port}", timeout=10) as client:
            wait(server, client, port)
            yield client
    finally:
        server.stop()
        server.sweep()


def wait(server: Child, client: httpx.Client, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not (listens(server.pid, port) and client.get("/health").is_success):
        server.require_running()
        assert time.monotonic() < deadline, server.last_lines()
        time.sleep(0.05)


@dataclass(frozen=True)
class World:
    """The rows, and who reads them."""

    settings: Settings
    store: redis.Redis
    library: Library
    server: Server

    def read(self, service: str, asked: Sequence[Mapping[str, Sequence[Any]]]) -> list[Reading]:
        """Ask our reader, at noon."""
        contract = compile_contract(USE_CASE, service, TrainingCut(tables=(), spine_hash="", known_at=KNOWN_AT))

        async def read() -> list[Reading]:
            async with connect_async(self.settings) as client:
                reader = OnlineReader(client, ReadPlan.compile(contract))
                return [await reader.read(keys, [NOON_US] * len(keys["customer_id"])) for keys in asked]

        return asyncio.run(read())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with LocalRedis(home) as local:
        settings = local.settings(Settings(home=home, clock_file=home / "clock").resolved())
        apply_definitions(settings, USE_CASE)
        with connect(settings) as store, serving(settings) as client:
            random = Random(SEED)
            for view in VIEWS:
                write_rows(store, USE_CASE.project, stored_view(view), written(random, view))
            write_rows(store, USE_CASE.project, stored_view(TYPES), pinned())
            yield World(settings, store, Library(feature_store(settings, USE_CASE)), Server(client))


class Cell(NamedTuple):
    """One value of one entity of one request: what we say of it, and what one of Feast's does."""

    feature: str
    dtype: DataType
    status: Status
    stored: Any
    usable: Any
    event_us: int | None
    theirs: Any
    their_status: str
    their_event_us: int


@pytest.fixture(scope="module")
def readings(world: World) -> list[Reading]:
    return world.read(STORED.name, requests())


@pytest.fixture(scope="module", params=["library", "server"])
def cells(request: pytest.FixtureRequest, world: World, readings: list[Reading]) -> list[Cell]:
    """Ask one of Feast's what we were asked."""
    peer: Library | Server = getattr(world, request.param)
    return [
        cell
        for reading, keys in zip(readings, requests(), strict=True)
        for cell in side_by_side(reading, peer.ask(STORED.name, keys))
    ]


def side_by_side(reading: Reading, answer: Answer) -> Iterator[Cell]:
    for view, feature in STORED.features:
        rows, name = reading.views[view.name], f"{view.name}__{feature}"
        ours = zip(rows.status, rows.values[feature], rows.usable(feature), rows.event_us, strict=True)
        for mine, theirs in zip(ours, zip(*answer[name], strict=True), strict=True):
            yield Cell(name, view.features[feature], *mine, *theirs)


def bits(value: Any) -> Any:
    """Return what is equal if and only if two values are of one type and equal to the last bit; every NaN is one."""
    if isinstance(value, float):
        return struct.pack("<d", value) if value == value else "NaN"
    return type(value), value


def equal(cell: Cell) -> bool:
    theirs = cell.theirs
    if cell.dtype in {"float32", "float64"} and isinstance(theirs, str):
        theirs = {"Infinity": INFINITE, "-Infinity": -INFINITE}[theirs]
    return bits(cell.stored) == bits(theirs)


def test_the_requests_hold_each_case_often_enough(readings: list[Reading]) -> None:
    rows = Counter(status for reading in readings for view in reading.views.values() for status in view.status)
    assert rows.total() == 4 * sum(len(keys["customer_id"]) for keys in requests())
    assert min(rows[status] for status in ("present", "missing", "stale")) > 1_000
    values = Counter(
        bits(value)
        for reading in readings
        for rows in (reading.views[TYPES.name],)
        for name in TYPES.features
        for value in rows.usable(name)
    )
    specials = [value for of_type in SPECIAL.values() for value in of_type if value == value]
    assert all(values[bits(value)] for value in [*specials, None])
    assert {len(keys["customer_id"]) for keys in requests()} == {1, 2, 3, 4, 5}


def test_values_and_event_times_of_rows_within_their_ttl_are_equal_to_the_last_bit(cells: list[Cell]) -> None:
    present = [cell for cell in cells if cell.status == "present"]

    assert [cell for cell in present if not equal(cell)] == []
    assert [cell for cell in present if cell.event_us != cell.their_event_us] == []
    assert {cell.their_status for cell in present} == {"PRESENT"}
    assert len({cell.feature for cell in present}) == len(STORED.features)


def test_past_its_ttl_feast_serves_what_is_stored_and_we_say_stale(cells: list[Cell]) -> None:
    stale = [cell for cell in cells if cell.status == "stale"]

    assert [cell for cell in stale if not equal(cell) or cell.their_status != "PRESENT"] == []
    assert [cell for cell in stale if cell.event_us != cell.their_event_us] == []
    assert {cell.usable for cell in stale} == {None}
    assert any(cell.theirs is not None for cell in stale)


def test_of_a_key_without_a_row_feast_says_present_and_null_since_1970_and_we_say_missing(cells: list[Cell]) -> None:
    missing = [cell for cell in cells if cell.status == "missing"]

    assert {(cell.theirs, cell.their_status, cell.their_event_us) for cell in missing} == {(None, "PRESENT", 0)}
    assert {(cell.stored, cell.usable, cell.event_us) for cell in missing} == {(None, None, None)}


def literals(world: World) -> dict[str, Any]:
    """Return the pinned customer's values, numbers as they are spelled in the feature server's JSON."""
    text = world.server.text(STORED.name, {"customer_id": [PINNED], "terminal_id": [0]})
    document = json.loads(text, parse_int=Spelled, parse_float=Spelled)
    pairs = zip(document["metadata"]["feature_names"], document["results"], strict=True)
    return {name: found["values"][0] for name, found in pairs if name.startswith(TYPES.name)}


class Spelled(str):
    """A number of a JSON text."""

    __slots__ = ()


def test_the_feature_server_spells_int64_with_all_digits_and_a_reader_of_doubles_loses_some(world: World) -> None:
    whole = literals(world)["customer_types__whole"]

    assert (type(whole), whole) == (Spelled, "9007199254740993")
    assert int(whole) == ODD
    assert int(float(whole)) == ODD - 1


def test_a_data_frame_of_feasts_loses_the_last_digits_of_an_int64_beside_a_null(world: World) -> None:
    rows = [{"customer_id": key} for key in (PINNED, PINNED + 1)]
    answer = world.library.store.get_online_features(["customer_types:whole"], rows)

    assert answer.to_dict()["whole"] == [ODD, None]
    assert str(answer.to_df()["whole"].dtype) == "float64"
    assert answer.to_df()["whole"][0] == ODD - 1


def test_the_feature_server_spells_float32_as_the_float64_of_the_same_value_and_keeps_the_sign_of_zero(
    world: World,
) -> None:
    spelled = literals(world)

    single, number = spelled["customer_types__single"], spelled["customer_types__number"]
    assert (single, number) == ("0.10000000149011612", "-0.0")
    (reading,) = world.read(STORED.name, [{"customer_id": [PINNED], "terminal_id": [0]}])
    assert bits(float(single)) == bits(reading.views[TYPES.name].values["single"][0])


@pytest.mark.parametrize(("value", "text"), [(NAN, "NaN"), (INFINITE, "Infinity"), (-INFINITE, "-Infinity")])
def test_what_is_no_number_in_json_the_feature_server_spells_as_a_text(world: World, value: float, text: str) -> None:
    (key,) = EntityKeys(USE_CASE.project, stored_view(TYPES).join_keys).encode({"customer_id": [PINNED]})
    field = field_of(TYPES.name, "number")
    before = world.store.hget(key, field)
    world.store.hset(key, field, Value(double_val=value).SerializeToString())
    try:
        keys = {"customer_id": [PINNED], "terminal_id": [0]}
        (reading,) = world.read(STORED.name, [keys])
        theirs = world.library.ask(STORED.name, keys)["customer_types__number"].values
        spelled = literals(world)["customer_types__number"]
    finally:
        world.store.hset(key, field, before)

    assert (type(spelled), spelled) == (str, text)
    assert bits(theirs[0]) == bits(reading.views[TYPES.name].values["number"][0]) == bits(value)


def test_a_nan_that_our_writer_wrote_is_null_to_everybody(world: World) -> None:
    place = pinned().column_names.index("number")
    rows = pinned().set_column(place, "number", pa.array([NAN])).set_column(0, "customer_id", pa.array([PINNED + 2]))
    write_rows(world.store, USE_CASE.project, stored_view(TYPES), rows)

    keys = {"customer_id": [PINNED + 2], "terminal_id": [0]}
    (reading,) = world.read(STORED.name, [keys])
    library, server = (peer.ask(STORED.name, keys) for peer in (world.library, world.server))

    assert reading.views[TYPES.name].status == ["present"]
    found = [answer["customer_types__number"].values for answer in (library, server)]
    assert [reading.views[TYPES.name].values["number"], *found] == [[None]] * 3


@pytest.mark.parametrize("peer", ["library", "server"])
def test_the_models_vector_is_what_feast_makes_on_demand_of_rows_that_are_not_stale(world: World, peer: str) -> None:
    contract = compile_contract(USE_CASE, ON_DEMAND, TrainingCut(tables=(), spine_hash="", known_at=KNOWN_AT))
    functions = load_functions(contract, "feature_repo")
    asked = requests()[:ON_DEMAND_REQUESTS]
    random, compared = Random(SEED), 0
    for keys, reading in zip(asked, world.read(ON_DEMAND, asked), strict=True):
        times = [NOON_US] * len(keys["customer_id"])
        cents = [random.randrange(1, 100_000) for _ in times]
        ours = vectors_of(
            contract, functions, Request("r", times, keys, [{"amount_cents": n} for n in cents]), reading
        ).vectors
        inputs = {"amount_cents": cents, "request_time_us": times}
        answer: Answer = getattr(world, peer).ask(ON_DEMAND, keys | inputs)
        theirs = np.array([answer[f"{f.view}__{f.name}"].values for f in contract.features], np.float64).T
        fresh = [
            row for row in range(len(times)) if all(view.status[row] != "stale" for view in reading.views.values())
        ]
        compared += len(fresh)
        assert [list(map(bits, row)) for row in ours[fresh].tolist()] == [
            list(map(bits, row)) for row in theirs[fresh].tolist()
        ]
    assert compared > ON_DEMAND_REQUESTS
