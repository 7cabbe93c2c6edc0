"""What each answer of a predictor means, over real HTTP in one event loop."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import orjson
import pytest
from aiohttp import web
from false_predictor import FalsePredictor, closes, scores
from kserve import ModelServer

from lockstep.local.ports import free_port
from lockstep.serving import hop as hops
from lockstep.serving.budget import Budget
from lockstep.serving.hop import PredictorHop
from lockstep.serving.refusal import Reason, Unavailable
from lockstep.settings import Settings

VECTORS = np.array([[0.1 + 0.2, np.nan], [1.0, -2.0]])


@dataclass
class Predictor:
    """Answers what it is told to; keeps what it is asked."""

    answer: Any = None
    status: int = 200
    wait: float = 0.0
    asked: list[tuple[str, Any, str | None]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked.append((request.path, orjson.loads(body) if body else None, request.headers.get("x-request-id")))
        await asyncio.sleep(self.wait)
        body = self.answer if isinstance(self.answer, bytes) else orjson.dumps(self.answer)
        return web.Response(body=body, status=self.status, content_type="application/json")


@asynccontextmanager
async def hop_to(predictor: Predictor, settings: Settings) -> AsyncIterator[PredictorHop]:
    runner = web.ServerRunner(web.Server(predictor.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    async with PredictorHop(address, "m", settings) as hop:
        yield hop
    await runner.cleanup()


async def score(hop: PredictorHop, seconds: float = 5.0, usual: float = 0.1) -> list[float]:
    budget = Budget(asyncio.get_running_loop().time(), seconds, usual)
    return await hop.score("fraud", VECTORS, "r-1", budget)


def refusal(predictor: Predictor, settings: Settings, seconds: float = 5.0) -> Unavailable:
    async def work() -> Unavailable:
        async with hop_to(predictor, settings) as hop:
            with pytest.raises(Unavailable) as refused:
                await score(hop, seconds)
            return refused.value

    return asyncio.run(work())


def test_vectors_go_with_every_bit_and_null_for_nan_and_the_scores_come_back(settings: Settings) -> None:
    predictor = Predictor({"predictions": [0.25, 0.1 + 0.2], "model": "m"})

    async def work() -> list[float]:
        async with hop_to(predictor, settings) as hop:
            return await score(hop)

    assert asyncio.run(work()) == [0.25, 0.1 + 0.2]
    sent = {"instances": [[0.1 + 0.2, None], [1.0, -2.0]]}
    assert predictor.asked == [("/v1/models/fraud:predict", sent, "r-1")]


@pytest.mark.parametrize(
    ("answer", "status", "reason", "message"),
    [
        ({"predictions": [0.1, 0.2], "model": "n"}, 200, Reason.CONTRACT_MISMATCH, "serves the model n, this"),
        (
            {"predictions": [0.1, 0.2], "model": "n" * 999},
            200,
            Reason.CONTRACT_MISMATCH,
            f"the model {'n' * 64}, this",
        ),
        ({"predictions": [0.1, 0.2]}, 200, Reason.CONTRACT_MISMATCH, "serves the model None, this"),
        ({"predictions": [0.1], "model": "m"}, 200, Reason.PREDICTOR_FAILED, "answered no scores of 2 rows"),
        ({"predictions": [0.1] * 3, "model": "m"}, 200, Reason.PREDICTOR_FAILED, "answered no scores of 2 rows"),
        ({"predictions": "ab", "model": "m"}, 200, Reason.PREDICTOR_FAILED, "answered no scores of 2 rows"),
        ({"predictions": [0.1, None], "model": "m"}, 200, Reason.PREDICTOR_FAILED, "no finite numbers"),
        ({"predictions": [0.1, "0.2"], "model": "m"}, 200, Reason.PREDICTOR_FAILED, "no finite numbers"),
        ({"predictions": [0.1, True], "model": "m"}, 200, Reason.PREDICTOR_FAILED, "no finite numbers"),
        ({"error": "no" * 500}, 400, Reason.PREDICTOR_FAILED, f"refused our vectors with 400: '{'no' * 100}'"),
        ({"predictions": [0.1, 0.2], "model": "m"}, 500, Reason.PREDICTOR_FAILED, "it answered 500: "),
        (b"<html>", 502, Reason.PREDICTOR_FAILED, "it answered 502: '<html>'"),
        (b"<html>", 200, Reason.PREDICTOR_FAILED, "it answered 200: '<html>'"),
        (b"", 200, Reason.PREDICTOR_FAILED, "it answered 200"),
        ([0.1, 0.2], 200, Reason.PREDICTOR_FAILED, "it answered 200: '[0.1,0.2]'"),
    ],
)
def test_an_answer_that_is_no_score_of_this_model_is_refused(
    settings: Settings, answer: Any, status: int, reason: Reason, message: str
) -> None:
    refused = refusal(Predictor(answer, status), settings)

    assert (refused.reason, message in f"{refused} {refused.detail}") == (reason, True)
    assert len(str(refused)) < 300
    assert "no" * 3 not in str(refused), (
        "what a stranger at the predictor's address says goes to the log, not to callers"
    )
    assert "html" not in str(refused)


def test_an_answer_that_is_late_is_not_waited_for(settings: Settings) -> None:
    refused = refusal(Predictor({"predictions": [0.1, 0.2], "model": "m"}, wait=0.3), settings, 0.05)

    assert refused.reason is Reason.PREDICTOR_TIMEOUT
    assert "within what was left of the budget" in str(refused)


def test_a_predictor_that_is_not_there_is_no_longer_asked_once_it_has_failed_often_enough(settings: Settings) -> None:
    few = settings.model_copy(update={"circuit_failures": 2, "circuit_pause": timedelta(minutes=1)})

    async def work() -> list[Reason]:
        async with PredictorHop(f"127.0.0.1:{free_port()}", "m", few) as hop:
            return [await reason_of(lambda: score(hop)) for _ in range(3)]

    assert asyncio.run(work()) == [
        Reason.PREDICTOR_UNAVAILABLE,
        Reason.PREDICTOR_UNAVAILABLE,
        Reason.PREDICTOR_CIRCUIT_OPEN,
    ]


async def reason_of(ask: Callable[[], Awaitable[object]]) -> Reason:
    with pytest.raises(Unavailable) as refused:
        await ask()
    return refused.value.reason


def test_answers_that_are_late_for_who_asked_for_less_time_do_not_open_the_circuit(settings: Settings) -> None:
    few = settings.model_copy(update={"circuit_failures": 2, "circuit_pause": timedelta(minutes=1)})
    predictor = Predictor({"predictions": [0.1, 0.2], "model": "m"}, wait=0.05)

    async def work() -> None:
        async with hop_to(predictor, few) as hop:
            for _ in range(4):
                assert await reason_of(lambda: score(hop, 0.005)) is Reason.PREDICTOR_TIMEOUT
            assert await score(hop) == [0.1, 0.2]

    asyncio.run(work())


@pytest.mark.parametrize("said", [b"", b"<html>", [1], "ready"])
def test_a_state_that_cannot_be_read_says_nothing(settings: Settings, said: Any) -> None:
    predictor = Predictor(said)

    async def work() -> None:
        async with hop_to(predictor, settings) as hop:
            assert await hop.state("fraud") == {}
            predictor.answer, predictor.status = {"ready": False, "model": "m"}, 503
            assert await hop.state("fraud") == {"ready": False, "model": "m"}

    asyncio.run(work())
    assert predictor.asked[0][0] == "/v1/models/fraud"


def test_a_predictor_that_refuses_a_request_opens_no_circuit_and_one_that_answers_garbage_does(
    settings: Settings,
) -> None:
    few = settings.model_copy(update={"circuit_failures": 2, "circuit_pause": timedelta(minutes=1)})

    async def work(predictor: Predictor) -> list[Reason]:
        async with hop_to(predictor, few) as hop:
            return [await reason_of(lambda: score(hop)) for _ in range(3)]

    for answer, status in (({"error": "no"}, 400), ({"predictions": [0.1, 0.2], "model": "n"}, 200)):
        assert Reason.PREDICTOR_CIRCUIT_OPEN not in asyncio.run(work(Predictor(answer, status)))
    assert asyncio.run(work(Predictor(b"<html>")))[-1] is Reason.PREDICTOR_CIRCUIT_OPEN


def test_a_request_is_posted_once_more_where_a_kept_connection_was_being_closed_and_not_on_a_fresh_one(
    settings: Settings,
) -> None:
    """What died of a request once is not asked to die of it again."""

    async def work(false: FalsePredictor) -> None:
        async with PredictorHop(f"127.0.0.1:{false.port}", "m", settings) as hop:
            false.saying = closes
            assert await reason_of(lambda: score(hop)) is Reason.PREDICTOR_UNAVAILABLE
            assert false.asked == 1, "over a fresh connection"
            false.saying = scores
            assert await score(hop) == [0.5, 0.5]
            false.saying = once
            assert await score(hop) == [0.5, 0.5]
            assert false.asked == 4, "over the kept connection, and once more"
            false.saying = closes
            assert await reason_of(lambda: score(hop)) is Reason.PREDICTOR_UNAVAILABLE
            assert false.asked == 6, "and not a third time"

    def once(digest: str, rows: int) -> Iterator[bytes]:
        false.saying = scores
        return closes(digest, rows)

    with FalsePredictor("m", {}) as false:
        asyncio.run(work(false))


def test_our_side_closes_an_idle_connection_before_the_server_does() -> None:
    assert inspect.signature(ModelServer).parameters["timeout_keep_alive"].default > hops._KEPT_SECONDS
