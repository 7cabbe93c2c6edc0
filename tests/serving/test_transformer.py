"""The transformer behind the edge, its store and its predictor, all in one event loop: who answers, over both protocols."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import fraud_case
import httpx
import numpy as np
import orjson
import pytest
import redis
import uvicorn
from fastapi import FastAPI
from prometheus_client import REGISTRY
from served_process import frozen
from serving_stack import EVENT_US, KNOWN, OLD_US, STALE, TODAY, UNKNOWN, fill

from lockstep.contract import FeatureContract
from lockstep.local import LocalRedis
from lockstep.online.epoch import EpochStore, Mark, ViewEpoch
from lockstep.online.layout import EntityKeys, pair_field
from lockstep.online.store import connect
from lockstep.serving.answering import MODEL_HEADER, SHADOW_HEADER
from lockstep.serving.answers import Scored
from lockstep.serving.artifact import ModelArtifact, load_artifact
from lockstep.serving.budget import Budget
from lockstep.serving.edge import OUTCOME_HEADER, Asked, Edge, Speaks
from lockstep.serving.log import ServedLog
from lockstep.serving.log_rows import stream_key
from lockstep.serving.predictor import predictors_of
from lockstep.serving.transformer import Transformer
from lockstep.settings import Settings

V1, V2 = "/v1/models/fraud:predict", "/v2/models/fraud/infer"
SECOND = timedelta(seconds=1)
OTHER_VIEWS = fraud_case.CARDS, fraud_case.TERMINALS.model_copy(update={"owner": "others"})
LATE = TODAY + timedelta(hours=3)  # what is online is from an hour before TODAY, and the objectives are three


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[FeatureContract], Path]:
    """Return where the model of a contract is."""
    home = tmp_path_factory.mktemp("models")
    estimator = fraud_case.fitted()

    def of(contract: FeatureContract) -> Path:
        there = home / contract.hash
        return there if there.exists() else fraud_case.write_model(there, contract, estimator)

    return of


@pytest.fixture
def online(server: LocalRedis, settings: Settings) -> Settings:
    changed = {"use_case": "fraud_case", "request_budget": 5 * SECOND}
    there = server.settings(settings.model_copy(update=changed))
    there.clock.advance_to(TODAY)
    with connect(there) as store:
        store.flushall()
    fill(there)
    return there


@dataclass
class Service:
    """A transformer that is ready, and its client."""

    transformer: Transformer
    client: httpx.AsyncClient
    now: datetime

    def row(self, customer: int = KNOWN, terminal: int = 5) -> dict[str, Any]:
        return {
            "customer_id": customer,
            "terminal_id": terminal,
            "amount_cents": 1250,
            "request_time": self.now.isoformat(),
        }

    async def ask(self, *rows: dict[str, Any], headers: dict[str, str] | None = None) -> httpx.Response:
        body = {"instances": list(rows), "request_id": "r"}
        return await self.client.post(V1, json=body, headers=headers)

    async def ask_tensors(self, *rows: dict[str, Any], headers: dict[str, str] | None = None) -> httpx.Response:
        kinds = {"customer_id": "INT64", "terminal_id": "INT64", "amount_cents": "INT64", "request_time": "BYTES"}
        inputs = [
            {"name": name, "datatype": kind, "shape": [len(rows)], "data": [row[name] for row in rows]}
            for name, kind in kinds.items()
        ]
        return await self.client.post(V2, json={"inputs": inputs, "id": "r"}, headers=headers)


@asynccontextmanager
async def predicting(artifact: ModelArtifact) -> AsyncIterator[str]:
    """Serve the models of a folder over HTTP, and yield where."""
    edge: Any = Edge(FastAPI(), predictors_of(artifact, "fraud"), 5 * SECOND, 1_000_000)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        own = uvicorn.Server(uvicorn.Config(edge, lifespan="off", log_level="warning"))
        serving = asyncio.create_task(own.serve(sockets=[listening]))
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            own.should_exit = True
            await serving


@asynccontextmanager
async def service(
    settings: Settings, here: ModelArtifact, there: ModelArtifact | None = None, *, shadow: bool = False
) -> AsyncIterator[Service]:
    """Serve one model's contract, before a predictor of the same model or of another, once it has looked at both."""
    async with predicting(there or here) as address:
        transformer = Transformer(
            "fraud", here.contract, here.digest, predictor=address, settings=settings, shadow=shadow
        )
        engine = asyncio.create_task(transformer.start_engine())
        edge: Any = Edge(FastAPI(), [transformer], settings.request_budget, 1_000_000)
        try:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://service") as client:
                for _ in range(500):
                    if transformer.status().get("wrong") != "it is starting":
                        break
                    await asyncio.sleep(0.01)
                yield Service(transformer, client, settings.clock.now())
        finally:
            transformer.stop_engine()
            await engine


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def answers_counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("lockstep_requests_total", {"outcome": outcome, "reason": ""}) or 0.0


def logged(settings: Settings) -> list[dict[str, Any]]:
    with redis.Redis(port=settings.redis_port) as client:
        return [orjson.loads(fields[b"row"]) for _, fields in client.xrange(stream_key("fraud_case"))]


def test_both_protocols_say_the_same(online: Settings, folder: Any) -> None:
    artifact = load_artifact(folder(fraud_case.contract()))
    known = {"contract": artifact.contract.hash, "model": artifact.digest}

    async def work() -> None:
        async with service(online, artifact) as it:
            rows = it.row(), it.row(UNKNOWN, 6)
            by_rows, by_tensors = await it.ask(*rows), await it.ask_tensors(*rows)

            assert (by_rows.status_code, by_tensors.status_code) == (200, 200)
            scores = by_rows.json()["predictions"]
            assert by_rows.json() == known | {
                "predictions": scores,
                "request_id": "r",
                "outcome": "flagged",
                "flags": [[], ["cards:missing", "terminals:missing"]],
            }
            assert by_tensors.json() == {
                "model_name": "fraud",
                "id": "r",
                "parameters": known | {"outcome": "flagged"},
                "outputs": [
                    {"name": "score", "datatype": "FP64", "shape": [2], "data": scores},
                    {
                        "name": "flags",
                        "datatype": "BYTES",
                        "shape": [2],
                        "data": ["", "cards:missing,terminals:missing"],
                    },
                ],
            }

    run(work())
    assert [(row["row"], row["shadow"], row["why"]) for row in logged(online)] == [
        (0, False, "uniform"),
        (1, False, "uniform"),
    ] * 2


def test_an_answer_says_in_its_head_what_became_of_the_request_and_how_long_each_part_took(
    online: Settings, folder: Any
) -> None:
    async def work() -> None:
        async with service(online, load_artifact(folder(fraud_case.contract()))) as it:
            for ask in (it.ask, it.ask_tensors):
                before = [answers_counted(outcome) for outcome in ("fresh", "flagged")]
                fresh, flagged = await ask(it.row()), await ask(it.row(UNKNOWN))
                assert [answers_counted(outcome) for outcome in ("fresh", "flagged")] == [n + 1 for n in before]
                assert [answer.headers[OUTCOME_HEADER] for answer in (fresh, flagged)] == ["fresh", "flagged"]
                parts = [part.split(";dur=") for part in fresh.headers["server-timing"].split(", ")]
                assert [name for name, _ in parts] == ["read", "predict"]
                assert all(0 < float(milliseconds) < 5000 for _, milliseconds in parts)

    run(work())


def test_how_long_the_store_and_the_predictor_took_are_not_mistaken_for_each_other(
    online: Settings, folder: Any
) -> None:
    async def work() -> None:
        async with service(online, load_artifact(folder(fraud_case.contract()))) as it:
            budget = Budget(asyncio.get_running_loop().time(), 5.0, 5.0)
            asked = Asked(orjson.dumps({"instances": [it.row()]}), Speaks.V1, budget)
            prepared = await it.transformer.prepare(asked, {})
            told: dict[str, str] = {}
            it.transformer.answer(Scored(replace(prepared, seconds=0.25), [0.5], 2.0), told)
            assert told["server-timing"] == "read;dur=250.000, predict;dur=2000.000"

    run(work())


def test_a_view_that_is_late_is_flagged_in_each_row(online: Settings, folder: Any) -> None:
    online.clock.advance_to(LATE)

    async def work() -> None:
        async with service(online, load_artifact(folder(fraud_case.contract()))) as it:
            answer = (await it.ask(it.row(), it.row(UNKNOWN))).json()
            assert answer["outcome"] == "flagged"
            assert answer["flags"] == [
                ["cards:late", "terminals:late"],
                ["cards:late", "terminals:late", "cards:missing"],
            ]

    run(work())


def test_while_a_hard_objective_is_broken_the_fallback_answers_without_that_view(
    online: Settings, folder: Any
) -> None:
    artifact = load_artifact(folder(fraud_case.with_fallback()))
    fallback = artifact.contract.fallback
    assert fallback is not None
    online.clock.advance_to(LATE)

    async def work() -> None:
        async with service(online, artifact) as it:
            answer, tensors = await it.ask(it.row(UNKNOWN)), await it.ask_tensors(it.row(UNKNOWN))

            assert (answer.headers[OUTCOME_HEADER], answer.json()["outcome"]) == ("fallback", "fallback")
            assert answer.json()["contract"] == tensors.json()["parameters"]["contract"] == fallback.hash
            assert answer.json()["flags"] == [["cards:late", "terminals:late", "cards:missing"]]
            vector = np.array([[np.nan, np.nan, it.now.hour, np.nan]])
            assert answer.json()["predictions"] == artifact.fallback.predict_proba(vector)[:, 1].tolist()
            assert tensors.json()["outputs"][0]["data"] == answer.json()["predictions"]

    run(work())
    row, _ = logged(online)
    assert (row["contract"], row["model"]) == (fallback.hash, artifact.digest)
    assert ([view["view"] for view in row["views"]], len(row["vector"])) == (["cards"], 4)


def test_of_a_live_request_that_is_refused_the_rejected_rows_are_logged_and_the_next_one_is_answered(
    online: Settings, folder: Any
) -> None:
    artifact = load_artifact(folder(fraud_case.with_policy(nb_tx_7d={"when_null": "reject"})))

    async def work() -> None:
        async with service(online.model_copy(update={"served_log_rate": 0.0}), artifact) as it:
            for ask in (it.ask, it.ask_tensors):
                refused = await ask(it.row(), it.row(UNKNOWN), it.row(), it.row(STALE))
                assert (refused.status_code, refused.json()["reason"]) == (422, "row_rejected")
                assert (refused.headers[OUTCOME_HEADER], refused.json()["rejected"]) == ("refused", [1, 3])
                assert (await ask(it.row())).status_code == 200

    run(work())
    rows = logged(online)
    assert [(row["row"], row["rejected"], row["score"], row["why"]) for row in rows] == [
        (1, "cards:nb_tx_7d", None, "flagged"),
        (3, "cards:nb_tx_7d", None, "flagged"),
    ] * 2
    assert [row["flags"] for row in rows[:2]] == [["cards:missing", "rejected"], ["cards:stale", "rejected"]]
    assert [row["counter"] for row in rows] == [1, 2, 3, 4]
    assert [row["vector"] for row in rows[:2]] == [[None, None, None, TODAY.hour, None]] * 2
    assert {(row["contract"], row["model"], row["shadow"]) for row in rows} == {
        (artifact.contract.hash, artifact.digest, False)
    }


def test_a_row_whose_stored_value_is_a_null_is_flagged_as_rejected_and_so_always_logged(
    online: Settings, folder: Any
) -> None:
    artifact = load_artifact(folder(fraud_case.with_policy(risk_28d={"when_null": "reject"})))

    async def work() -> None:
        async with service(online.model_copy(update={"served_log_rate": 0.0}), artifact) as it:
            assert (await it.ask(it.row())).status_code == 422

    run(work())
    (row,) = logged(online)
    assert (row["rejected"], row["flags"], row["why"]) == ("terminals:risk_28d", ["rejected"], "flagged")
    assert row["views"][1]["status"] == "present"


def test_what_the_fallback_s_contract_rejects_is_logged_by_that_contract(online: Settings, folder: Any) -> None:
    plain = fraud_case.with_fallback()
    assert plain.fallback is not None
    features = fraud_case.with_policy(avg_amount_7d={"when_null": "reject"}).features[1:]
    fallback = plain.fallback.model_copy(update={"features": features})
    artifact = load_artifact(folder(plain.model_copy(update={"fallback": fallback})))
    online.clock.advance_to(LATE)

    async def work() -> None:
        async with service(online, artifact) as it:
            assert (await it.ask(it.row(UNKNOWN), it.row())).json()["rejected"] == [0]

    run(work())
    (row,) = logged(online)
    assert (row["contract"], row["rejected"], row["why"]) == (fallback.hash, "cards:avg_amount_7d", "uniform")
    assert row["flags"] == ["cards:late", "terminals:late", "cards:missing", "rejected"]
    assert ([view["view"] for view in row["views"]], len(row["vector"])) == (["cards"], 4)


def test_who_answers_from_now_on_is_a_line_in_the_log(
    online: Settings, folder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = load_artifact(folder(fraud_case.with_fallback()))

    async def work(epochs: EpochStore) -> None:
        async with service(online, artifact) as it:
            for watermark_us, outcome in ((EVENT_US, "fresh"), (OLD_US, "fallback"), (EVENT_US, "fresh")):
                epochs.restore("terminals", ViewEpoch(Mark(1, 1, 1, watermark_us)))
                assert [(await it.ask(it.row())).json()["outcome"] for _ in range(3)] == [outcome] * 3

    with connect(online) as store:
        run(work(EpochStore(store, "fraud_case")))
    assert [record.getMessage() for record in caplog.records if "answers from now on" in record.getMessage()] == [
        "fraud-fallback answers from now on: terminals:late",
        "fraud answers from now on: every objective is kept",
    ]


def test_while_a_hard_objective_is_broken_and_there_is_no_fallback_nobody_answers(
    online: Settings, folder: Any
) -> None:
    hard = fraud_case.with_fallback().model_copy(update={"fallback": None})
    online.clock.advance_to(LATE)

    async def work() -> None:
        async with service(online, load_artifact(folder(hard))) as it:
            answer = await it.ask(it.row())
            assert (answer.status_code, answer.json()["reason"]) == (503, "stale_features")
            assert it.transformer.status()["ready"] is True, "the next tick may come any moment"

    run(work())
    assert logged(online) == []


def test_a_dark_service_has_the_fallback_answer_when_it_is_asked_to(online: Settings, folder: Any) -> None:
    artifact = load_artifact(folder(fraud_case.with_fallback()))
    assert artifact.contract.fallback is not None
    fallback_hash = artifact.contract.fallback.hash

    async def work() -> None:
        async with service(online, artifact, shadow=True) as it:
            forced = await it.ask(it.row(), headers={MODEL_HEADER: "fallback", SHADOW_HEADER: "1"})
            plain = await it.ask(it.row())
            other = await it.ask(it.row(), headers={MODEL_HEADER: "main"})

            assert [forced.headers[OUTCOME_HEADER], plain.headers[OUTCOME_HEADER]] == ["fallback", "fresh"]
            assert [forced.json()["contract"], plain.json()["contract"]] == [fallback_hash, artifact.contract.hash]
            assert (other.status_code, other.json()["error"]) == (400, "x-lockstep-model can be fallback")

    run(work())
    assert [(row["contract"], row["shadow"]) for row in logged(online)] == [
        (fallback_hash, True),
        (artifact.contract.hash, True),
    ]


def test_a_fallback_that_there_is_not_is_no_answer(online: Settings, folder: Any) -> None:
    async def work() -> None:
        async with service(online, load_artifact(folder(fraud_case.contract())), shadow=True) as it:
            answer = await it.ask(it.row(), headers={MODEL_HEADER: "fallback"})
            assert (answer.status_code, answer.json()["error"]) == (400, "fraud_v1 has no fallback model")

    run(work())


@pytest.mark.parametrize("header", [MODEL_HEADER, SHADOW_HEADER])
def test_a_live_service_lets_no_caller_choose_the_model(online: Settings, folder: Any, header: str) -> None:
    async def work() -> None:
        async with service(online, load_artifact(folder(fraud_case.with_fallback()))) as it:
            answer = await it.ask(it.row(), headers={header: "fallback"})
            assert answer.status_code == 400
            assert f"this service takes traffic: it refuses the header {header}" in answer.json()["error"]

    run(work())


def test_a_live_service_logs_its_share_and_each_flagged_row_and_a_dark_one_logs_all(
    online: Settings, folder: Any
) -> None:
    sampled = online.model_copy(update={"served_log_rate": 0.0})
    artifact = load_artifact(folder(fraud_case.contract()))

    async def work(*, shadow: bool) -> None:
        async with service(sampled, artifact, shadow=shadow) as it:
            await it.ask(it.row(), it.row(UNKNOWN), it.row())

    run(work(shadow=False))
    assert [(row["row"], row["why"], row["counter"]) for row in logged(online)] == [(1, "flagged", 1)]
    run(work(shadow=True))
    assert [(row["row"], row["why"]) for row in logged(online)[1:]] == [(0, "uniform"), (1, "uniform"), (2, "uniform")]


def test_what_a_dark_service_has_answered_is_logged_before_it_ends(online: Settings, folder: Any) -> None:
    async def work() -> None:
        async with service(online, load_artifact(folder(fraud_case.contract())), shadow=True) as it:
            for _ in range(20):
                assert (await it.ask(*[it.row()] * 50)).status_code == 200

    run(work())
    rows = logged(online)
    assert sorted(row["counter"] for row in rows) == list(range(1, 1001))
    assert {row["shadow"] for row in rows} == {True}


def test_damaged_bytes_in_the_store_are_a_failure_and_no_outage(online: Settings, folder: Any) -> None:
    (key,) = EntityKeys("fraud_case", fraud_case.CARDS.join_keys).encode({"customer_id": [KNOWN]})

    async def work() -> None:
        async with service(online, load_artifact(folder(fraud_case.contract()))) as it:
            with redis.Redis(port=online.redis_port) as store:
                store.hset(key, pair_field("cards"), b"damaged")
            for _ in range(online.circuit_failures * 2):
                answer = await it.ask(it.row())
                assert (answer.status_code, answer.json()["reason"]) == (500, "failed")
            assert (await it.ask(it.row(UNKNOWN))).status_code == 200

    run(work())


def test_a_store_that_was_emptied_is_no_answer_and_no_readiness(online: Settings, folder: Any) -> None:
    with connect(online) as store:
        store.flushall()

    async def work() -> None:
        async with service(online, load_artifact(folder(fraud_case.contract()))) as it:
            answer, ready = await it.ask(it.row()), await it.client.get("/v2/models/fraud/ready")
            assert (answer.status_code, answer.json()["reason"], answer.headers["retry-after"]) == (
                503,
                "store_empty",
                "1",
            )
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            assert ready.json()["wrong"].startswith("nothing was brought online in this store")

    run(work())


def test_a_predictor_of_another_model_is_never_taken_for_ours(online: Settings, folder: Any) -> None:
    ours, theirs = (
        load_artifact(folder(of)) for of in (fraud_case.contract(), fraud_case.contract(views=OTHER_VIEWS))
    )

    async def work() -> None:
        async with service(online, ours, theirs) as it:
            answer, ready = await it.ask(it.row()), await it.client.get("/v1/models/fraud")
            assert (answer.status_code, answer.json()["reason"]) == (503, "contract_mismatch")
            assert ready.status_code == 503
            assert f"the predictor serves the model {theirs.digest} of the contract {theirs.contract.hash}" in str(
                ready.json()
            )

    run(work())
    assert logged(online) == []


def test_a_service_that_is_ready_says_which_model_of_which_contract_it_serves(online: Settings, folder: Any) -> None:
    artifact = load_artifact(folder(fraud_case.contract()))

    async def work() -> None:
        async with service(online, artifact) as it:
            answer = await it.client.get("/v2/health/ready")
            same = {"name": "fraud", "model": artifact.digest, "contract": artifact.contract.hash}
            assert (answer.status_code, answer.json()) == (200, same | {"ready": True})

    run(work())


def test_who_asks_for_no_time_gets_no_score_and_does_not_harm_the_others(online: Settings, folder: Any) -> None:
    async def work(store: redis.Redis) -> None:
        async with service(online, load_artifact(folder(fraud_case.contract()))) as it:
            for _ in range(online.circuit_failures * 2):
                store.client_pause(20)
                answer = await it.ask(it.row(), headers={"x-lockstep-budget-ms": "1"})
                assert (answer.status_code, answer.json()["reason"]) == (503, "store_timeout")
            assert (await it.ask(it.row())).status_code == 200

    with redis.Redis(port=online.redis_port) as store:
        run(work(store))


def test_what_fails_to_close_keeps_nothing_else_open(
    online: Settings, folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = load_artifact(folder(fraud_case.contract()))
    close = ServedLog.close

    async def fails(log: ServedLog) -> None:
        await close(log)
        raise RuntimeError("the log")

    monkeypatch.setattr(ServedLog, "close", fails)

    async def ask() -> None:
        async with service(online, here) as it:
            assert (await it.ask(it.row())).status_code == 200

    async def work() -> None:
        with redis.Redis(port=online.redis_port) as client:
            before = len(client.client_list())
            with pytest.raises(RuntimeError, match="the log"):
                await ask()
            await asyncio.sleep(0.05)
            assert len(client.client_list()) == before

    run(work())


def test_who_takes_most_of_the_time_to_send_the_body_opens_no_circuit_for_others(
    online: Settings, folder: Any, server: LocalRedis
) -> None:
    hasty = online.model_copy(update={"request_budget": timedelta(milliseconds=200)})

    async def work() -> None:
        async with service(hasty, load_artifact(folder(fraud_case.contract()))) as it:
            body = orjson.dumps({"instances": [it.row()]})

            async def slowly() -> AsyncIterator[bytes]:
                await asyncio.sleep(0.12)
                yield body

            with frozen(server.pid):
                told: list[str] = []
                while told.count("store_timeout") <= online.circuit_failures:
                    told.append((await it.client.post(V1, content=slowly())).json()["reason"])
                    assert told[-1] in {"store_timeout", "too_slow"}

    run(work())
