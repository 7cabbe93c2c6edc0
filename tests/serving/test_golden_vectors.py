"""The vector that the predictor gets is the training row for the same instant, bit for bit, for each service.

A small world is computed and materialized three times, as the workflow does it. In between, rows are asked of the online store
and made into vectors as a transformer makes them. Afterwards, when the lake holds all that came later, the same keys, instants
and inputs are asked of Lockstep's offline store, through Feast's `get_historical_features`, as training asks.

In the end a transformer's own process is asked, and the vectors that it sends to the predictor are looked at.
"""

import asyncio
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import fraud_case
import httpx
import numpy as np
import orjson
import prometheus_client  # noqa: F401 - before Feast, which otherwise turns this process to multiprocess metrics
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from feature_repo.definitions import use_case as fraud
from feature_repo.world import append_slice, make_world
from lockstep.clock import from_micros, to_micros
from lockstep.contract import FeatureContract, TrainingCut
from lockstep.lake import Lake
from lockstep.local import LocalRedis
from lockstep.local.child import Child
from lockstep.local.ports import LOOPBACK, free_port, listens
from lockstep.materialize.interval import Materializer
from lockstep.materialize.ledger import Ledger
from lockstep.offline.history import training_features
from lockstep.offline.registry import apply_definitions
from lockstep.online.reader import OnlineReader, Reading, ReadPlan
from lockstep.online.store import connect, connect_async
from lockstep.serving.artifact import model_digest
from lockstep.serving.features import feature_matrix, load_functions
from lockstep.serving.policy import apply_policy
from lockstep.serving.request import Request
from lockstep.serving.vectors import vectors_of
from lockstep.settings import Settings
from lockstep.training.contract import compile_contract
from lockstep.views import FeatureService, default
from lockstep.views.compute import bootstrap, compute
from lockstep.views.declare import ARROW_TYPES, EVENT_TIMESTAMP

# None of the reference use case's services has a policy; this one is fraud_v2 with defaults.
DEFAULTS = FeatureService(
    "with_defaults",
    fraud.service("fraud_v2").features,
    "tests",
    policy={"risk_30d": default(0.5), "nb_tx_1d": default(-1.0), "amount_to_avg_7d": default(0.1)},
)
USE_CASE = replace(fraud, services=(*fraud.services, DEFAULTS))
SERVICES = [service.name for service in USE_CASE.services]

CARDS, DAYS, SEED = 40, 16, 7
WORLD = make_world(CARDS, DAYS)
START = WORLD.parameters.start
STOPS = tuple(START + timedelta(days=14, hours=hours) for hours in (0, 3, 26))
LAG = timedelta(minutes=5)  # compute_lag and visible_lag of each view
# Well after both lags; then before the next stop, past the ttl of one view, of two, and of all.
LATER = (timedelta(minutes=15), timedelta(hours=2, minutes=59))
STALE = (timedelta(days=4), timedelta(days=8), timedelta(days=400))
ROWS = 120  # a stop
BATCH = 20  # a request to the transformer
READY_SECONDS = 90.0


@dataclass(frozen=True)
class Asked:
    """Rows that were asked for: keys, instants, and inputs."""

    times_us: list[int]
    entities: Mapping[str, list[int]]
    cents: list[int]

    @property
    def inputs(self) -> list[dict[str, int]]:
        return [{"amount_cents": cents} for cents in self.cents]

    def of(self, contract: FeatureContract) -> dict[str, list[int]]:
        """Return the join keys that a contract names."""
        return {key.name: self.entities[key.name] for key in contract.join_keys}


@dataclass(frozen=True)
class World:
    """What was asked between the stops, and what the online store then answered to each service."""

    settings: Settings
    asked: Sequence[Asked]
    readings: Mapping[str, Sequence[Reading]]


def contract_of(service: str) -> FeatureContract:
    return compile_contract(USE_CASE, service, TrainingCut(tables=(), spine_hash="", known_at=STOPS[-1]))


def draw(random: Random, stop: datetime) -> Asked:
    """Return rows, some of them of cards or terminals that nobody knows, and after the last stop some long after it."""
    keys = {"customer_id": CARDS, "terminal_id": 2 * CARDS}
    return Asked(
        [to_micros(stop + moment(random, last=stop == STOPS[-1])) for _ in range(ROWS)],
        {name: [random.randrange(count + count // 10) for _ in range(ROWS)] for name, count in keys.items()},
        [random.randrange(1, 100_000) for _ in range(ROWS)],
    )


def moment(random: Random, *, last: bool) -> timedelta:
    if last and random.random() < 1 / 2:
        return random.choice(STALE)
    first, end = (limit // timedelta(microseconds=1) for limit in LATER)
    return timedelta(microseconds=random.randrange(first, end))


def read(settings: Settings, service: str, asked: Asked) -> Reading:
    contract = contract_of(service)

    async def once() -> Reading:
        async with connect_async(settings) as client:
            return await OnlineReader(client, ReadPlan.compile(contract)).read(asked.of(contract), asked.times_us)

    return asyncio.run(once())


def served_vectors(service: str, asked: Asked, reading: Reading) -> NDArray[np.float64]:
    """Make the vectors as a transformer does."""
    contract = contract_of(service)
    request = Request("r", asked.times_us, asked.of(contract), asked.inputs)
    return vectors_of(contract, load_functions(contract, "feature_repo"), request, reading).vectors


def training_vectors(settings: Settings, service: str, asked: Asked) -> NDArray[np.float64]:
    """Retrieve the rows as a training set is made of them."""
    contract = contract_of(service)
    inputs = {"amount_cents": asked.cents, "request_time_us": asked.times_us}
    columns = {key.name: (key, asked.entities[key.name]) for key in contract.join_keys}
    columns |= {column.name: (column, inputs[column.name]) for column in contract.request_inputs}
    spine = {name: pa.array(values, ARROW_TYPES[column.dtype]) for name, (column, values) in columns.items()}
    spine[EVENT_TIMESTAMP] = pa.array(asked.times_us, pa.int64()).cast(ARROW_TYPES["timestamp"])
    found = training_features(settings, USE_CASE, service, pa.table(spine)).rows
    settled = apply_policy(contract, feature_matrix(contract, found))
    assert not settled.rejected.any()
    return settled.vectors


def bits(vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bits of the numbers, those of one NaN for every NaN."""
    return np.where(np.isnan(vectors), np.nan, vectors).view(np.int64)


def bring_up_to(settings: Settings, lake: Lake, ledger: Ledger, before: datetime | None, stop: datetime) -> None:
    """Deliver, compute and materialize as the workflow does, five minutes after the stop."""
    append_slice(lake, WORLD, before and before + LAG, stop + LAG)
    settings.clock.advance_to(stop + LAG)
    with connect(settings) as store:
        for view in USE_CASE.views:
            if before is None:
                bootstrap(settings, lake, ledger, view, START, stop)
            else:
                compute(settings, lake, ledger, view, stop)
            Materializer(settings, lake, ledger, store, USE_CASE.project, view).run()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with LocalRedis(home) as server:
        given = Settings(
            home=home, clock_file=home / "clock", request_budget=timedelta(seconds=4), request_time_limit=LATER[1]
        )
        settings = server.settings(given.resolved())
        lake, ledger = Lake.open(settings, USE_CASE.project), Ledger.open(settings, USE_CASE.project)
        asked = [draw(Random(f"{SEED} {stop}"), stop) for stop in STOPS]
        readings: dict[str, list[Reading]] = {service: [] for service in SERVICES}
        for before, stop, rows in zip((None, *STOPS), STOPS, asked, strict=False):
            bring_up_to(settings, lake, ledger, before, stop)
            for service, found in readings.items():
                found.append(read(settings, service, rows))
        apply_definitions(settings, USE_CASE)
        yield World(settings, asked, readings)


@pytest.mark.parametrize("service", SERVICES)
def test_the_vector_is_the_training_row_for_the_same_instant_bit_for_bit(world: World, service: str) -> None:
    for asked, reading in zip(world.asked, world.readings[service], strict=True):
        served, training = served_vectors(service, asked, reading), training_vectors(world.settings, service, asked)
        assert served.shape == (ROWS, len(contract_of(service).features))
        np.testing.assert_array_equal(bits(served), bits(training))


def test_the_rows_are_present_stale_and_missing_and_the_stops_bring_new_values(world: World) -> None:
    readings = world.readings["fraud_v2"]
    for view in ("customer_spend", "terminal_risk"):
        found = Counter(status for reading in readings for status in reading.views[view].status)
        assert min(found[status] for status in ("present", "stale", "missing")) >= 20, (view, found)
    newest = [max(event or 0 for event in reading.views["customer_spend"].event_us) for reading in readings]
    stops = [to_micros(stop) for stop in STOPS]
    assert stops[0] >= newest[0]
    assert all(before < event <= stop for before, event, stop in zip(stops, newest[1:], stops[1:], strict=False))


def test_a_default_is_in_both_vectors(world: World) -> None:
    asked, reading = world.asked[-1], world.readings["with_defaults"][-1]
    column = [feature.name for feature in contract_of("with_defaults").features].index("risk_30d")
    unknown = [row for row, status in enumerate(reading.views["terminal_risk"].status) if status == "missing"]

    vectors = served_vectors("with_defaults", asked, reading)

    assert {0.5} == set(vectors[unknown, column].tolist())


class Predictor(ThreadingHTTPServer):
    """Stands where a predictor does: keeps the body of each request, and answers that every row's score is one half."""

    def __init__(self, digest: str, contract: str) -> None:
        super().__init__((LOOPBACK, 0), PredictorHandler)
        self.digest = digest
        self.contract = contract
        self.bodies: list[bytes] = []


class PredictorHandler(BaseHTTPRequestHandler):
    server: Predictor

    def do_GET(self) -> None:
        self.answer({"ready": True, "model": self.server.digest, "contract": self.server.contract})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["x-request-id"] != "warm-up":  # no request: it opens the connection
            self.server.bodies.append(body)
        rows = len(orjson.loads(body)["instances"])
        self.answer({"predictions": [0.5] * rows, "model": self.server.digest})

    def answer(self, document: Any) -> None:
        body = orjson.dumps(document)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def listening(predictor: Predictor) -> Iterator[str]:
    thread = threading.Thread(target=predictor.serve_forever)
    thread.start()
    try:
        yield f"{LOOPBACK}:{predictor.server_port}"
    finally:
        predictor.shutdown()
        thread.join()
        predictor.server_close()


@contextmanager
def transforming(settings: Settings, model_dir: Path, predictor: str) -> Iterator[httpx.Client]:
    """Run a transformer's process before that predictor, and yield a client of it."""
    port = free_port()
    options = {"model_name": "fraud", "model_dir": model_dir, "predictor_host": predictor}
    command = [sys.executable, "-m", "lockstep.serving.transformer", "--http_host", LOOPBACK, "--http_port", str(port)]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    paths = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH", ""))))
    environment = os.environ | settings.environment() | {"PYTHONPATH": paths}
    child = Child("the transformer", command, settings.home / "logs" / "transformer.log", environment)
    try:
        with httpx.Client(base_url=f"http://{LOOPBACK}:{port}", timeout=10) as client:
            deadline = time.monotonic() + READY_SECONDS
            while not (listens(child.pid, port) and client.get("/v2/models/fraud/ready").is_success):
                child.require_running()
                assert time.monotonic() < deadline, child.last_lines()
                time.sleep(0.05)
            yield client
    finally:
        child.stop()


def test_a_predictor_gets_the_training_rows_from_a_transformers_process(world: World, tmp_path: Path) -> None:
    """The last test of this world, whose clock it moves."""
    service, (*_, asked) = "fraud_v1", world.asked
    contract = contract_of(service)
    model_dir = fraud_case.write_model(tmp_path / "model", contract, fraud_case.fitted(len(contract.features)))
    within = [row for row, at in enumerate(asked.times_us) if at < to_micros(STOPS[-1] + LATER[1])]
    rows = [
        {name: values[row] for name, values in asked.entities.items()}
        | {"request_time": from_micros(asked.times_us[row]).isoformat(), "amount_cents": asked.cents[row]}
        for row in within
    ]
    world.settings.clock.advance_to(STOPS[-1] + LATER[0])

    predictor = Predictor(model_digest(model_dir), contract.hash)
    with listening(predictor) as host, transforming(world.settings, model_dir, host) as client:
        answers = [
            client.post("/v1/models/fraud:predict", json={"instances": rows[start : start + BATCH]})
            for start in range(0, len(rows), BATCH)
        ]

    assert {(answer.status_code, answer.text) for answer in answers if not answer.is_success} == set()
    assert len(within) > 2 * BATCH
    got = [vector for body in predictor.bodies for vector in orjson.loads(body)["instances"]]
    training = training_vectors(world.settings, service, asked)[within]
    np.testing.assert_array_equal(bits(np.array(got, np.float64)), bits(training))
