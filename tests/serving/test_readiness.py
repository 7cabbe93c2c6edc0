"""Readiness before a real store, and a predictor over HTTP that says what the test has it say."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import fraud_case
import orjson
import pytest
import redis
from aiohttp import web
from prometheus_client import REGISTRY
from serving_stack import TODAY, fill

from lockstep.local import LocalRedis
from lockstep.online import store
from lockstep.online.reader import OnlineReader, ReadPlan
from lockstep.serving import readiness
from lockstep.serving.answering import models_of
from lockstep.serving.hop import PredictorHop
from lockstep.serving.readiness import Readiness, measure_lag
from lockstep.settings import Settings

CONTRACT = fraud_case.with_fallback()
assert CONTRACT.fallback is not None
HASHES = {"fraud": CONTRACT.hash, "fraud-fallback": CONTRACT.fallback.hash}
DIGEST = "d" * 64
STARTING = "it is starting"


@dataclass
class Predictor:
    """Is ready to serve both models, unless told otherwise; keeps who asked it for scores, and how ready we said we were."""

    states: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {n: {"ready": True, "model": DIGEST, "contract": h} for n, h in HASHES.items()}
    )
    status: int = 200
    wait: float = 0.0
    asked: list[tuple[str, str | None, str]] = field(default_factory=list)
    wrong: Callable[[], str] = str

    async def handle(self, request: web.Request) -> web.Response:
        name, _, verb = request.path.rpartition("/")[2].partition(":")
        document: Any = self.states[name]
        await asyncio.sleep(self.wait)
        if verb:
            self.asked.append((name, request.headers.get("x-request-id"), self.wrong()))
            rows = len(orjson.loads(await request.read())["instances"])
            document = {"model": DIGEST, "predictions": [0.5] * rows}
        return web.Response(body=orjson.dumps(document), status=self.status, content_type="application/json")


@pytest.fixture
def online(server: LocalRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The case's rows are online, and looks are quick."""
    monkeypatch.setattr(readiness, "_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(readiness, "_AGAIN_SECONDS", 0.02)
    there = server.settings(settings.model_copy(update={"use_case": "fraud_case"}))
    there.clock.advance_to(TODAY)
    with store.connect(there) as connection:
        connection.flushall()
    fill(there)
    return there


@asynccontextmanager
async def looking(settings: Settings, predictor: Predictor) -> AsyncIterator[Readiness]:
    """Look while the block lasts."""
    runner = web.ServerRunner(web.Server(predictor.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    connection = store.connect_async(settings)
    try:
        async with PredictorHop(f"127.0.0.1:{runner.addresses[0][1]}", DIGEST, settings) as hop:
            reader = OnlineReader(connection, ReadPlan.compile(CONTRACT))
            models = models_of(CONTRACT, "fraud", settings.use_case)
            ready = Readiness(CONTRACT, DIGEST, models, reader, hop, settings)
            predictor.wrong = lambda: ready.wrong
            task = asyncio.create_task(ready.run())
            yield ready
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    finally:
        await connection.aclose()
        await runner.cleanup()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for is no event
            await asyncio.sleep(0.005)


def ages() -> set[str]:
    """Return the views whose age is told."""
    of = (view.name for view in CONTRACT.views)
    return {v for v in of if REGISTRY.get_sample_value("lockstep_feature_age_seconds", {"view": v}) is not None}


def told_ready() -> float | None:
    return REGISTRY.get_sample_value("lockstep_ready")


def test_both_models_are_warmed_up_before_it_is_ready_and_not_again(online: Settings) -> None:
    predictor = Predictor()

    async def work() -> None:
        async with looking(online, predictor) as ready:
            await until(lambda: ready.wrong == "")
            assert told_ready() == 1.0
            predictor.states["fraud"]["ready"] = False
            await until(lambda: ready.wrong != "")
            assert told_ready() == 0.0
            predictor.states["fraud"]["ready"] = True
            await until(lambda: ready.wrong == "")

    asyncio.run(work())
    assert predictor.asked == [("fraud", "warm-up", STARTING), ("fraud-fallback", "warm-up", STARTING)]


def test_a_predictor_that_scores_nothing_is_not_ready_though_it_says_so(online: Settings) -> None:
    predictor = Predictor(status=500)

    async def work() -> None:
        async with looking(online, predictor) as ready:
            await until(lambda: ready.wrong != STARTING)
            assert ready.wrong == "the predictor is out of order: it answered 500"
            predictor.status = 200
            await until(lambda: ready.wrong == "")

    asyncio.run(work())


@pytest.mark.parametrize("name", ["fraud", "fraud-fallback"])
@pytest.mark.parametrize(
    ("state", "wrong"),
    [
        ({"ready": False}, "the predictor is not ready to serve {name}"),
        ({"contract": "c"}, f"the predictor serves the model {DIGEST} of the contract c, here are {DIGEST} and "),
        ({"model": "m"}, "the predictor serves the model m of the contract {hash}, here are "),
    ],
)
def test_each_model_that_may_answer_has_to_be_served_by_its_own_contract(
    online: Settings, name: str, state: dict[str, Any], wrong: str
) -> None:
    predictor = Predictor()
    predictor.states[name] |= state

    async def work() -> None:
        async with looking(online, predictor) as ready:
            await until(lambda: ready.wrong != STARTING)
            assert ready.wrong.startswith(wrong.format(name=name, hash=HASHES[name]))

    asyncio.run(work())
    assert predictor.asked == []


def test_how_old_the_views_are_is_told_while_the_store_answers_and_not_after(
    online: Settings, server: LocalRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "_PATIENCE_SECONDS", 0.2)
    predictor = Predictor()

    async def work(client: redis.Redis) -> None:
        async with looking(online, predictor) as ready:
            await until(lambda: ready.wrong == "")
            predictor.states["fraud"]["ready"] = False
            await until(lambda: ready.wrong != "")
            assert ages() == {"cards", "terminals"}, "the store still tells"
            client.client_pause(1_000)
            await until(lambda: "store" in ready.wrong)
            assert ready.wrong == "the online store did not answer within 0.2 s"
            assert ages() == set()
            await until(lambda: ages() == {"cards", "terminals"})

    with redis.Redis(port=server.port) as client:
        asyncio.run(work(client))


def test_a_predictor_that_does_not_answer_is_not_taken_for_the_store(
    online: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "_PATIENCE_SECONDS", 0.2)

    async def work() -> None:
        async with looking(online, Predictor(wait=1.0)) as ready:
            await until(lambda: ready.wrong != STARTING)
            assert ready.wrong == "the predictor did not answer within 0.2 s"
            assert ages() == {"cards", "terminals"}

    asyncio.run(work())


def test_how_late_the_event_loop_comes_back_is_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_LAG_SECONDS", 0.01)

    def observed() -> tuple[float, float]:
        found = [REGISTRY.get_sample_value(f"lockstep_event_loop_lag_seconds_{each}") for each in ("count", "sum")]
        return found[0] or 0.0, found[1] or 0.0

    async def work() -> float:
        count, total = observed()
        measuring = asyncio.create_task(measure_lag())
        await asyncio.sleep(0)
        time.sleep(0.06)  # noqa: ASYNC251 - it holds up the loop
        await until(lambda: observed()[0] > count)
        measuring.cancel()
        return observed()[1] - total

    assert asyncio.run(work()) >= 0.05
