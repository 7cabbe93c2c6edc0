"""Whatever befalls the store, the served log or the clock: an answer comes in time, says why, and all is well again afterwards.

Real processes: a transformer and a predictor, a Redis for the features and one for the served log; a second transformer reads the
same features over a wire that can be slow or cut.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import fraud_case
import orjson
import pytest
import redis
from pydantic import SecretStr
from served_process import (
    PATIENT,
    Answer,
    ServedProcess,
    at_once,
    frozen,
    require_bounded,
    several,
    wait_until,
)
from serving_stack import KNOWN, STALE, TODAY, fill

from lockstep.clock import to_micros
from lockstep.local import LocalRedis
from lockstep.local.ports import LOOPBACK, free_port
from lockstep.online.epoch import EpochStore, Mark, ViewEpoch
from lockstep.online.store import connect
from lockstep.serving.log import stream_key
from lockstep.settings import Settings
from tests.faults.wire import Wire

BUDGET = 0.2
HALF = BUDGET / 2
FAILURES = 5
PAUSE = 0.5


class StoreWire(Wire):
    """A wire to the store whose answers can be late, or half of which are broken off in the middle."""

    def __init__(self, port: int) -> None:
        super().__init__(port, befall=Wire.cut, answers=True)
        self.delay = 0.0
        self.cuts = False
        self._random = Random(7)

    def _count(self, length: int) -> int:
        time.sleep(self.delay)
        return length // 2 if self.cuts and self._random.random() < 0.5 else length


@dataclass
class World:
    settings: Settings
    redis: LocalRedis
    log: LocalRedis
    wire: StoreWire
    predictor: ServedProcess
    transformer: ServedProcess
    far: ServedProcess
    model_dir: Path

    def ask(self, headers: dict[str, str] | None = None, at: ServedProcess | None = None, **changes: Any) -> Answer:
        row = {"customer_id": KNOWN, "terminal_id": 5, "amount_cents": 1250}
        row |= {"request_time": self.settings.clock.now().isoformat()} | changes
        return (at or self.transformer).ask({"instances": [row]}, headers)

    def recover(self, at: ServedProcess | None = None) -> None:
        """Require that it answers again and is ready, without anybody's help."""
        wait_until(lambda: self.ask(PATIENT, at).told == (200, "fresh"), why=lambda: self.ask(PATIENT, at))
        wait_until(lambda: (at or self.transformer).state()["ready"])

    def mark(self, view: str, age: timedelta) -> None:
        """Set the watermark of a view so long before now."""
        with connect(self.settings) as store:
            mark = Mark(1, 1, 1, to_micros(self.settings.clock.now() - age))
            EpochStore(store, "fraud_case").restore(view, ViewEpoch(mark))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    contract = fraud_case.with_fallback()
    model_dir = fraud_case.write_model(home / "model", contract, fraud_case.fitted())
    with ExitStack() as stack:
        store, log = (stack.enter_context(LocalRedis(home / name, free_port())) for name in ("store", "log"))
        given = Settings(
            home=home,
            use_case="fraud_case",
            clock_file=home / "clock",
            request_budget=timedelta(seconds=BUDGET),
            circuit_failures=FAILURES,
            circuit_pause=timedelta(seconds=PAUSE),
            served_log_url=SecretStr(f"redis://{LOOPBACK}:{log.port}/0"),
        )
        given.clock.advance_to(TODAY)
        settings = store.settings(given.resolved())
        fill(settings)
        wire = stack.enter_context(StoreWire(store.port))
        over_wire = settings.model_copy(update={"redis_port": wire.port})
        predictor = stack.enter_context(ServedProcess("predictor", settings, model_dir))
        start = partial(ServedProcess, "transformer", model_dir=model_dir, predictor_port=predictor.port)
        transformer, far = (stack.enter_context(start(settings=where)) for where in (settings, over_wire))
        for process in (predictor, transformer, far):
            process.wait_ready()
        yield World(settings, store, log, wire, predictor, transformer, far, model_dir)


@pytest.fixture(autouse=True)
def well(world: World) -> None:
    """Each test starts at a service that is well."""
    world.recover()
    world.recover(world.far)


def require_open(world: World, reason: str) -> None:
    """Require that the circuit opens, and then answers at once."""
    wait_until(lambda: world.ask().told == (503, reason))
    answers = [answer for answer in several(world.ask, 5) if answer.told == (503, reason)]
    assert answers
    assert answers[0].headers["retry-after"] == "1"
    require_bounded(reason, answers, 0.0)


def test_a_store_that_hangs(world: World) -> None:
    with frozen(world.redis.pid):
        answers = several(world.ask)
        assert {answer.told for answer in answers} == {(503, "store_timeout")}
        require_bounded("a store that hangs", answers, HALF)
        require_open(world, "store_circuit_open")
        wait_until(lambda: not world.transformer.state()["ready"])
        assert world.transformer.ask(path="/v2/health/live", method="GET").status == 200
    world.recover()


def test_a_store_that_lets_its_clients_wait(world: World) -> None:
    with redis.Redis(port=world.redis.port) as client:
        client.client_pause(1_000)
    answers = several(world.ask)
    assert {answer.told for answer in answers} == {(503, "store_timeout")}
    require_bounded("a store that lets its clients wait", answers, HALF)
    world.recover()


def test_eight_connections_while_the_store_hangs(world: World) -> None:
    ask = partial(world.ask, {"x-lockstep-budget-ms": "199"})  # less than the usual, so that no circuit opens
    with frozen(world.redis.pid):
        answers = [answer for _ in range(3) for answer in at_once(ask)]
        assert {answer.told for answer in answers} == {(503, "store_timeout")}
        require_bounded("a store that hangs, 8 connections", answers, HALF, lambda: at_once(ask))
    world.recover()


@pytest.mark.parametrize("comes_back", ["filled", "empty"])
def test_a_store_that_is_killed_and_comes_back(world: World, comes_back: str) -> None:
    assert world.redis.pid
    os.kill(world.redis.pid, signal.SIGKILL)
    world.redis.stop()

    answers = several(world.ask)
    assert {answer.told for answer in answers} == {(503, "store_unavailable")}
    require_bounded("a store that is gone", answers, HALF)
    wait_until(lambda: not world.transformer.state()["ready"])

    port = world.redis.port
    world.redis.start()
    assert world.redis.port == port
    if comes_back == "empty":
        wait_until(lambda: world.ask().told == (503, "store_empty"))
        wait_until(lambda: "nothing was brought online" in world.transformer.state().get("wrong", ""))
        assert world.transformer.ask(path="/v2/health/ready", method="GET").status == 503
    fill(world.settings)
    world.recover()


def test_a_store_that_is_slow(world: World) -> None:
    try:
        world.wire.delay = HALF * 2
        answers = several(lambda: world.ask(at=world.far))
        assert {answer.told for answer in answers} == {(503, "store_timeout")}
        require_bounded("a store that is too slow", answers, HALF)
        world.wire.delay = HALF / 4
        wait_until(lambda: world.ask(at=world.far).told == (200, "fresh"))
    finally:
        world.wire.delay = 0.0
    world.recover(world.far)


def test_half_of_the_answers_of_the_store_are_broken_off(world: World) -> None:
    score = world.ask(PATIENT).document["predictions"]
    world.wire.cuts = True
    try:
        answers = several(lambda: world.ask(at=world.far), 40)
    finally:
        world.wire.cuts = False
    told = {answer.told for answer in answers}
    assert (503, "store_unavailable") in told
    assert told <= {(200, "fresh"), (503, "store_unavailable"), (503, "store_circuit_open")}
    assert all(answer.document["predictions"] == score for answer in answers if answer.status == 200)
    require_bounded("a store whose answers are cut", answers, HALF)
    world.recover(world.far)


def test_one_request_tries_once_the_circuit_was_open_for_a_moment(world: World) -> None:
    with frozen(world.redis.pid):
        require_open(world, "store_circuit_open")
        assert world.transformer.count("lockstep_circuit", dependency="online store", lockstep_circuit="open") == 1
        time.sleep(PAUSE + 0.1)
        told = [answer.told for answer in at_once(world.ask)]
        assert told.count((503, "store_timeout")) == 1
        assert told.count((503, "store_circuit_open")) == 7
    world.recover()
    assert world.transformer.count("lockstep_circuit", dependency="online store", lockstep_circuit="closed") == 1


def test_who_asks_for_a_tiny_budget_opens_no_circuit_for_others(world: World) -> None:
    with frozen(world.redis.pid):
        hasty = several(lambda: world.ask({"x-lockstep-budget-ms": "5"}), 4 * FAILURES)
        assert {answer.told for answer in hasty} == {(503, "store_timeout")}
        require_bounded("a budget of 5 ms", hasty, 0.0025)
    with frozen(world.predictor.child.pid):
        hasty = several(lambda: world.ask({"x-lockstep-budget-ms": "50"}), 2 * FAILURES)
        assert {answer.told for answer in hasty} <= {(503, "store_timeout"), (503, "predictor_timeout")}
        assert (503, "predictor_timeout") in {answer.told for answer in hasty}
    assert world.ask(PATIENT).told == (200, "fresh")


def test_what_the_epoch_hash_may_not_hold_ends_no_readiness(world: World) -> None:
    with redis.Redis(port=world.redis.port) as client:
        client.hset("lockstep:epoch:fraud_case", b"\xff", "of another writer")
        try:
            wait_until(lambda: not world.transformer.state()["ready"])
            assert world.ask().status in {500, 503}
        finally:
            client.hdel("lockstep:epoch:fraud_case", b"\xff")
    world.recover()


@pytest.mark.parametrize("how", ["dead", "hangs"])
def test_answers_do_not_wait_for_the_served_log(world: World, how: str) -> None:
    dropped = partial(world.transformer.count, "lockstep_served_log_rows_total", outcome="dropped")
    before = dropped()
    with ExitStack() as stack:
        if how == "hangs":
            stack.enter_context(frozen(world.log.pid))
        else:
            world.log.stop()
            stack.callback(world.log.start)
        answers = several(lambda: world.ask(PATIENT), 5)
        assert {answer.told for answer in answers} == {(200, "fresh")}
        require_bounded(
            f"a served log whose store {how}", answers, 0.0, lambda: several(lambda: world.ask(PATIENT), 5)
        )
        wait_until(lambda: dropped() > before)
        assert world.transformer.state()["ready"]
    with redis.Redis(port=world.log.port) as client:

        def arrives() -> bool:
            world.ask(PATIENT | {"x-request-id": f"after {how}"})
            return any(
                b"after " + how.encode() in fields[b"row"] for _, fields in client.xrevrange(stream_key("fraud_case"))
            )

        wait_until(arrives)
    with redis.Redis(port=world.redis.port) as client:
        assert not client.exists(stream_key("fraud_case"))


HISTOGRAMS = ("request", "feature_read", "predictor", "event_loop_lag")


def test_the_metrics_tell_what_happens_and_name_nobody(world: World) -> None:
    unknown = 424_242_424_242
    answer = world.ask(PATIENT | {"x-request-id": "a caller's own name"}, customer_id=unknown)
    assert answer.told == (200, "flagged")
    world.ask(PATIENT, customer_id=STALE)
    world.ask(PATIENT, terminal_id=str(unknown))
    samples = world.transformer.metrics()

    def told(name: str, *labels: str) -> dict[Any, float]:
        """Return the samples of a name by the values of some labels."""
        return {tuple(dict(each)[label] for label in labels): value for each, value in samples[name].items()}

    for histogram in HISTOGRAMS:
        buckets = told(f"lockstep_{histogram}_seconds_bucket", "le")
        between = [float(le) for (le,) in buckets if 0.00025 <= float(le) <= 0.25]
        assert {0.00025, 0.001, 0.005, 0.01, 0.1, 0.25} <= set(between)
        assert len(between) >= 15
        assert sum(samples[f"lockstep_{histogram}_seconds_count"].values()) > 0
    ((contract, _),) = samples["lockstep_contract_info"].items()
    assert dict(contract)["contract"] == answer.document["contract"]
    assert dict(contract)["model"] == answer.document["model"]
    circuits = told("lockstep_circuit", "dependency", "lockstep_circuit")
    assert {key: value for key, value in circuits.items() if value} == {
        ("online store", "closed"): 1,
        ("predictor", "closed"): 1,
    }
    ages = told("lockstep_feature_age_seconds", "view")
    assert ages.keys() == {("cards",), ("terminals",)}
    assert all(3_600 <= age < 3_600 + 600 for age in ages.values())
    missing = told("lockstep_missing_features_total", "view", "feature", "reason")
    assert {
        ("cards", "nb_tx_7d", "missing"),
        ("cards", "nb_tx_7d", "stale"),
        ("terminals", "risk_28d", "null"),
    } <= missing.keys()
    requests = told("lockstep_requests_total", "outcome", "reason")
    assert {("fresh", ""), ("flagged", ""), ("refused", "bad_request")} <= requests.keys()
    assert samples["lockstep_served_log_queue_rows"].keys() == {()}
    assert samples["lockstep_ready"] == {(): 1.0}
    values = " ".join(value for of_name in samples.values() for labels in of_name for _, value in labels)
    assert not any(secret in values for secret in (str(unknown), "a caller's own name"))


HOURS = timedelta(hours=1)


@pytest.mark.parametrize(
    ("view", "age", "outcome", "flag"),
    [
        ("cards", 4 * HOURS, "flagged", "cards:late"),
        ("cards", -HOURS, "flagged", "cards:unvouched"),
        ("terminals", 4 * HOURS, "fallback", "terminals:late"),
        ("terminals", -HOURS, "fallback", "terminals:unvouched"),
    ],
)
def test_a_view_that_does_not_keep_its_objective(
    world: World, view: str, age: timedelta, outcome: str, flag: str
) -> None:
    world.mark(view, age)
    try:
        answer = world.ask(PATIENT)
        assert answer.told == (200, outcome)
        assert answer.headers["x-lockstep-outcome"] == outcome
        assert answer.document["flags"] == [[flag]]
        main, fallback = fraud_case.with_fallback().hash, fraud_case.with_fallback().fallback.hash  # type: ignore[union-attr]
        assert answer.document["contract"] == (fallback if outcome == "fallback" else main)
    finally:
        world.mark(view, HOURS)
    world.recover()


def test_a_clock_that_goes_wrong(world: World) -> None:
    """Ahead, all views are late; behind, no watermark can be true."""
    clock = world.settings.home / "clock"
    offset = int(clock.read_text())
    request_time = world.settings.clock.now().isoformat()
    try:
        for minutes, flags in (
            (10, []),
            (240, ["cards:late", "terminals:late"]),
            (-240, ["cards:unvouched", "terminals:unvouched"]),
        ):
            clock.write_text(str(offset + minutes * 60_000_000))
            refused = world.ask(PATIENT, request_time=request_time)
            assert refused.told == (400, "bad_request")
            assert "further than 300 s from now" in refused.document["error"]
            assert world.ask(PATIENT).document["flags"] == [flags]
    finally:
        clock.write_text(str(offset))
    world.recover()


def test_a_service_that_is_told_to_end_answers_and_logs_what_it_has_begun(world: World) -> None:
    over_wire = world.settings.model_copy(update={"redis_port": world.wire.port})
    ids = [f"in flight {number}" for number in range(8)]
    answers: dict[str, Answer] = {}
    with ServedProcess("transformer", over_wire, world.model_dir, predictor_port=world.predictor.port) as ending:
        ending.wait_ready()

        def ask(request_id: str) -> None:
            answers[request_id] = world.ask(PATIENT | {"x-request-id": request_id}, ending)

        threads = [threading.Thread(target=ask, args=(each,)) for each in ids]
        world.wire.delay = 0.5
        try:
            for thread in threads:
                thread.start()
            time.sleep(0.2)
            ending.signal(signal.SIGTERM)
            for thread in threads:
                thread.join()
        finally:
            world.wire.delay = 0.0
        code = ending.child.wait()

    assert {answer.told for answer in answers.values()} == {(200, "fresh")}
    assert sorted(answers) == ids
    assert code == 0
    with redis.Redis(port=world.log.port) as client:
        logged = [orjson.loads(fields[b"row"])["request_id"] for _, fields in client.xrange(stream_key("fraud_case"))]
    assert [logged.count(each) for each in ids] == [1] * len(ids)
