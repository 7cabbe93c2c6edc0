"""Whatever befalls the store, the served log or the clock: an answer comes in time, says why, and all is well afterwards."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import fraud_case
import orjson
import pytest
import redis
from served_process import (
    HASTY,
    HASTY_SECONDS,
    PATIENT,
    RECOVERY_SECONDS,
    Answer,
    at_once,
    frozen,
    require_bounded,
    several,
    wait_until,
)
from serving_stack import KNOWN, STALE, fill
from serving_world import BUDGET, FAILURES, HALF, PAUSE, World, running_world

from lockstep.online.layout import EntityKeys
from lockstep.serving.log_rows import stream_key


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(autouse=True)
def well(world: World) -> None:
    """Each test starts at a service that is well."""
    world.recover()
    world.recover(world.far)


def require_open(world: World, reason: str) -> None:
    """Require that the circuit opens, and then answers at once."""
    wait_until(lambda: world.ask().told == (503, reason))

    def opened() -> list[Answer]:
        return [answer for answer in several(world.ask, 5) if answer.told == (503, reason)]

    answers = opened()
    assert answers[0].headers["retry-after"] == "1"
    require_bounded(reason, answers, 0.0, world.transformer, opened)


def test_a_store_that_hangs(world: World) -> None:
    again = partial(several, partial(world.ask, HASTY))
    with frozen(world.redis.pid):
        answers = several(world.ask)
        assert {answer.told for answer in answers} == {(503, "store_timeout")}
        require_bounded("a store that hangs", answers, HALF, world.transformer, again)
        require_open(world, "store_circuit_open")
        wait_until(lambda: not world.transformer.state()["ready"])
        assert world.transformer.ask(path="/v2/health/live", method="GET").status == 200
    world.recover()


def test_a_store_that_lets_its_clients_wait(world: World) -> None:
    with redis.Redis(port=world.redis.port) as client:
        client.client_pause(1_500)
    answers = several(world.ask)
    assert {answer.told for answer in answers} == {(503, "store_timeout")}
    world.recover()


def test_eight_connections_while_the_store_hangs(world: World) -> None:
    ask = partial(world.ask, HASTY)
    with frozen(world.redis.pid):
        answers = [answer for _ in range(3) for answer in at_once(ask)]
        assert {answer.told for answer in answers} == {(503, "store_timeout")}
        require_bounded(
            "a store that hangs, 8 connections", answers, HASTY_SECONDS / 2, world.transformer, lambda: at_once(ask)
        )
    world.recover()


@pytest.mark.parametrize("comes_back", ["filled", "empty"])
def test_a_store_that_is_killed_and_comes_back(world: World, comes_back: str) -> None:
    assert world.redis.pid
    os.kill(world.redis.pid, signal.SIGKILL)
    world.redis.stop()

    again = partial(several, partial(world.ask, PATIENT))
    answers = again()
    assert {answer.told for answer in answers} == {(503, "store_unavailable")}
    require_bounded("a store that is gone", answers, HALF, world.transformer, again)
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
        again = partial(several, partial(world.ask, HASTY, world.far))
        require_bounded("a store that is too slow", answers, HALF, world.far, again)
        world.wire.delay = HALF / 4
        wait_until(lambda: world.ask(PATIENT, world.far).told == (200, "fresh"))
    finally:
        world.wire.delay = 0.0
    world.recover(world.far)


def test_half_of_the_answers_of_the_store_are_broken_off(world: World) -> None:
    score = world.ask(PATIENT).document["predictions"]
    world.wire.cuts = True
    try:
        answers = several(lambda: world.ask(PATIENT, world.far), 40)
    finally:
        world.wire.cuts = False
    told = {answer.told for answer in answers}
    assert (503, "store_unavailable") in told
    assert told <= {(200, "fresh"), (503, "store_unavailable"), (503, "store_circuit_open")}
    assert all(answer.document["predictions"] == score for answer in answers if answer.status == 200)
    require_bounded("a store whose answers are cut", answers, BUDGET, world.far)
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
    ask = partial(several, lambda: world.ask({"x-lockstep-budget-ms": "5"}), 4 * FAILURES)
    with frozen(world.redis.pid):
        hasty = ask()
        assert {answer.told for answer in hasty} == {(503, "store_timeout")}
        require_bounded("a budget of 5 ms", hasty, 0.005, world.transformer, ask)
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
            f"a served log whose store {how}",
            answers,
            HALF,
            world.transformer,
            lambda: several(lambda: world.ask(PATIENT), 5),
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


ESCAPES = {7: r"\a", 8: r"\b", 9: r"\t", 10: r"\n", 13: r"\r"}  # as MONITOR writes them


@contextmanager
def reads_of(world: World, customer: int) -> Iterator[Iterator[object]]:
    """Yield the reads of a customer's row as they reach the store."""
    (key,) = EntityKeys("fraud_case", fraud_case.CARDS.join_keys).encode({"customer_id": [customer]})
    shown = "".join(ESCAPES.get(byte) or (chr(byte) if 32 <= byte < 127 else rf"\x{byte:02x}") for byte in key)
    deadline = time.monotonic() + RECOVERY_SECONDS
    with redis.Redis(port=world.redis.port) as client, client.monitor() as monitor:

        def reads() -> Iterator[object]:
            for each in monitor.listen():  # readiness looks every second
                assert time.monotonic() < deadline, "the requests did not reach the store"
                if shown in each["command"]:
                    yield each

        yield reads()


def test_a_service_that_is_told_to_end_answers_and_logs_what_it_has_begun(world: World) -> None:
    """The log's store hangs until all is answered. The last test: it ends the transformer that reads over the wire."""
    ids = [f"in flight {number}" for number in range(8)]
    world.wire.delay = 0.5
    try:
        with ThreadPoolExecutor(len(ids)) as threads, frozen(world.log.pid), reads_of(world, KNOWN) as reads:
            asked = [threads.submit(world.ask, PATIENT | {"x-request-id": each}, world.far) for each in ids]
            for _ in ids:
                next(reads)
            world.far.signal(signal.SIGTERM)
            answers = [each.result() for each in asked]
            time.sleep(0.5)
            assert world.far.child.running
    finally:
        world.wire.delay = 0.0

    assert {answer.told for answer in answers} == {(200, "fresh")}
    assert world.far.child.wait() == 0
    with redis.Redis(port=world.log.port) as client:
        logged = [orjson.loads(fields[b"row"])["request_id"] for _, fields in client.xrange(stream_key("fraud_case"))]
    assert [logged.count(each) for each in ids] == [1] * len(ids)
