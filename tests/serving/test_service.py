"""The whole way of a request, with a real Redis, two real processes and real HTTP."""

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fraud_case
import numpy as np
import orjson
import pyarrow as pa
import pytest
import redis

from lockstep.clock import from_micros, parse_time, to_micros
from lockstep.lake import Lake
from lockstep.local import LocalRedis, LocalService
from lockstep.local.ports import free_port
from lockstep.online.store import connect
from lockstep.online.writer import write_rows
from lockstep.serving.artifact import load_artifact, model_digest
from lockstep.serving.drain import drain
from lockstep.serving.log import SERVED_LOG, stream_key
from lockstep.settings import Settings

TODAY = datetime(2018, 6, 1, 12, tzinfo=UTC)
EVENT_US = to_micros(TODAY - timedelta(hours=1))
CREATED_US = EVENT_US + 300_000_000
OLD_US = EVENT_US - 4 * fraud_case.DAY_US
AVERAGE = 0.1 + 0.2  # not a short decimal: every bit must survive the store, the hop and the log

KNOWN, STALE, UNKNOWN = 7, 8, 999


@dataclass
class Stack:
    settings: Settings
    service: LocalService
    redis: LocalRedis
    model_dir: Path

    def client(self) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.redis.port)

    def row(self, customer: int = KNOWN, terminal: int = 5, **changes: Any) -> dict[str, Any]:
        row = {"customer_id": customer, "terminal_id": terminal, "amount_cents": 1250}
        return row | {"request_time": self.settings.clock.now().isoformat()} | changes

    def post(self, body: Any, headers: dict[str, str] | None = None, url: str = "") -> tuple[int, dict[str, Any], Any]:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        sent = {"content-type": "application/json"} | (headers or {})
        request = urllib.request.Request(url or self.service.predict_url, data, sent)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, orjson.loads(answer.read()), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, orjson.loads(error.read()), error.headers

    def logged(self, request_id: str) -> list[dict[str, Any]]:
        """Return the stream's rows of one request, once they have arrived."""
        with self.client() as client:
            for _ in range(200):
                entries = client.xrange(stream_key("fraud_case"))
                rows = [orjson.loads(fields[b"row"]) for _, fields in entries]
                found = [row for row in rows if row["request_id"] == request_id]
                if found:
                    return found
                time.sleep(0.02)
        raise AssertionError(f"{request_id} was never logged")


def fill(settings: Settings) -> None:
    """Write two customers, one of them long ago, and one terminal."""
    with connect(settings) as store:
        cards = {
            "customer_id": pa.array([KNOWN, STALE], pa.int64()),
            "nb_tx_7d": pa.array([3, 4], pa.int64()),
            "avg_amount_7d": pa.array([AVERAGE, 1.5], pa.float64()),
        }
        write_rows(store, "fraud_case", fraud_case.CARDS, pa.table(cards | times([EVENT_US, OLD_US])))
        terminals = {"terminal_id": pa.array([5], pa.int64()), "risk_28d": pa.array([None], pa.float64())}
        write_rows(store, "fraud_case", fraud_case.TERMINALS, pa.table(terminals | times([EVENT_US])))


def times(events_us: list[int]) -> dict[str, pa.Array]:
    kind = pa.timestamp("us", tz="UTC")
    created = [event + CREATED_US - EVENT_US for event in events_us]
    return {"event_timestamp": pa.array(events_us, kind), "created_timestamp": pa.array(created, kind)}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("home")
    model_dir = fraud_case.write_model(home / "model", fraud_case.contract(), fraud_case.fitted())
    given = Settings(
        home=home,
        use_case="fraud_case",
        clock_file=home / "clock",
        read_deadline=timedelta(seconds=1),
        predictor_deadline=timedelta(seconds=1),
    )
    given.clock.advance_to(TODAY)
    with pytest.MonkeyPatch.context() as patch, LocalRedis(home, free_port()) as server:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))))
        settings = server.settings(given.resolved())
        fill(settings)
        with LocalService(settings, model_dir, "fraud") as service:
            yield Stack(settings, service, server, model_dir)


def expected_vector(row: dict[str, Any]) -> list[float]:
    hour = to_micros(parse_time(row["request_time"])) // fraud_case.HOUR_US % 24
    return [np.nan, 3.0, 1250 / AVERAGE, float(hour), AVERAGE]


def test_the_score_is_the_estimator_s_on_the_contract_s_vector_to_the_last_bit(stack: Stack) -> None:
    row = stack.row()
    artifact = load_artifact(stack.model_dir)

    status, answer, _ = stack.post({"instances": [row], "request_id": "one"})

    assert status == 200
    assert answer == {
        "predictions": [artifact.estimator.predict_proba(np.array([expected_vector(row)]))[0, 1]],
        "request_id": "one",
        "flags": [[]],
        "contract": artifact.contract.hash,
        "model": model_digest(stack.model_dir),
    }


def test_what_was_read_and_scored_is_logged_as_it_was(stack: Stack) -> None:
    rows = [stack.row(), stack.row(STALE), stack.row(UNKNOWN, 6)]
    before = stack.settings.clock.now()

    _, answer, _ = stack.post({"instances": rows, "request_id": "three"})
    first, stale, unknown = stack.logged("three")

    assert [row["row"] for row in (first, stale, unknown)] == [0, 1, 2]
    assert answer["flags"] == [[], ["cards:stale"], ["cards:missing", "terminals:missing"]]
    assert [row["flags"] for row in (first, stale, unknown)] == answer["flags"]
    assert [row["score"] for row in (first, stale, unknown)] == answer["predictions"]
    assert first["vector"] == [None, *expected_vector(rows[0])[1:]]
    assert stale["vector"][1] is None
    assert orjson.loads(first["inputs"]) == {"amount_cents": 1250}
    assert orjson.loads(first["entity_keys"]) == {"customer_id": KNOWN, "terminal_id": 5}
    assert first["request_time"] == to_micros(parse_time(rows[0]["request_time"]))
    assert before <= from_micros(first["read_time"]) <= stack.settings.clock.now()
    assert [(v["view"], v["status"]) for v in first["views"]] == [("cards", "present"), ("terminals", "present")]
    assert (first["views"][0]["event_timestamp"], first["views"][0]["created_timestamp"]) == (EVENT_US, CREATED_US)
    assert orjson.loads(first["views"][0]["values"]) == {"nb_tx_7d": 3, "avg_amount_7d": AVERAGE}
    assert orjson.loads(stale["views"][0]["values"]) == {"nb_tx_7d": 4, "avg_amount_7d": 1.5}
    assert orjson.loads(unknown["views"][0]["values"]) == {"nb_tx_7d": None, "avg_amount_7d": None}
    assert unknown["views"][0]["event_timestamp"] is None
    assert orjson.loads(first["epoch_before"]) == orjson.loads(first["epoch_after"])
    assert (first["shadow"], first["why"]) == (False, "uniform")
    assert [row["counter"] - first["counter"] for row in (first, stale, unknown)] == [0, 1, 2]
    assert len({row["process"] for row in (first, stale, unknown)}) == 1


def test_a_header_names_the_request(stack: Stack) -> None:
    headers = {"x-request-id": "named", "content-type": "application/json; charset=utf-8"}

    status, answer, _ = stack.post(orjson.dumps({"instances": [stack.row()]}), headers)

    assert (status, answer["request_id"]) == (200, "named")
    assert [row["shadow"] for row in stack.logged("named")] == [False]


def test_no_caller_of_a_live_service_decides_that_a_row_is_a_shadow(stack: Stack) -> None:
    status, answer, _ = stack.post({"instances": [stack.row()]}, {"x-lockstep-shadow": "1"})

    assert status == 400
    assert "takes traffic" in str(answer)


def test_a_bad_request_is_answered_400_with_the_reason(stack: Stack) -> None:
    status, answer, _ = stack.post({"instances": [stack.row(customer_id="7")]})

    assert status == 400
    assert answer == {"error": 'instances[0].customer_id is text, not a whole number of 64 bits: "7"'}


def test_the_clock_that_a_replay_moves_is_the_service_s_clock(stack: Stack) -> None:
    now = datetime.now(UTC).isoformat()
    status, answer, _ = stack.post({"instances": [stack.row(request_time=now)]})
    assert status == 400
    assert "further than 300 s from now (2018-06-01T" in answer["error"]

    ahead = stack.settings.clock.now() + timedelta(hours=2)
    assert stack.post({"instances": [stack.row(request_time=ahead.isoformat())]})[0] == 400
    stack.settings.clock.advance_to(ahead)
    assert stack.post({"instances": [stack.row(request_time=ahead.isoformat())]})[0] == 200


def test_a_store_that_hangs_is_answered_503_in_time_and_the_next_read_is_right(stack: Stack) -> None:
    with stack.client() as client:
        client.execute_command("CLIENT", "PAUSE", 1500, "ALL")
    start = time.monotonic()

    status, answer, headers = stack.post({"instances": [stack.row(STALE)]})

    assert (status, headers["Retry-After"]) == (503, "1")
    assert answer == {"error": "the online store did not answer within 1 s"}
    assert time.monotonic() - start < 1.4
    time.sleep(0.7)
    assert stack.post({"instances": [stack.row()]})[1]["flags"] == [[]]


def test_a_store_that_is_down_is_answered_503_until_it_is_back(stack: Stack) -> None:
    stack.redis.stop()
    try:
        status, answer, headers = stack.post({"instances": [stack.row()]})
    finally:
        stack.redis.start()
        fill(stack.settings)

    assert (status, headers["Retry-After"]) == (503, "1")
    assert answer["error"].startswith("the online store d")
    assert stack.post({"instances": [stack.row()]})[1]["flags"] == [[]]


def test_the_predictor_refuses_vectors_of_another_length(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.service.predictor_port}/v1/models/fraud:predict"

    status, answer, _ = stack.post({"instances": [[1.0, None]]}, url=url)

    assert status == 400
    assert answer == {"error": "the instances have the shape [1, 2], the contract has 5 features"}


def test_a_dark_service_logs_shadow_rows_and_sends_them_before_it_ends(stack: Stack) -> None:
    with LocalService(stack.settings, stack.model_dir, "fraud", shadow=True) as dark:
        for number in range(20):
            status, *_ = stack.post(
                {"instances": [stack.row()] * 50, "request_id": f"dark-{number}"}, url=dark.predict_url
            )
            assert status == 200

    with stack.client() as client:
        rows = [orjson.loads(fields[b"row"]) for _, fields in client.xrange(stream_key("fraud_case"))]
    ours = [row for row in rows if row["request_id"].startswith("dark-")]
    assert sorted(row["counter"] for row in ours) == list(range(1, 1001))
    assert {row["shadow"] for row in ours} == {True}


def test_served_rows_reach_the_lake_once(stack: Stack) -> None:
    lake = Lake.open(stack.settings, "fraud_case")
    _, answer, _ = stack.post({"instances": [stack.row(), stack.row(UNKNOWN)], "request_id": "to-the-lake"})
    stack.logged("to-the-lake")

    with stack.client() as client:
        first = drain(stack.settings, lake, client, "fraud_case")
        second = drain(stack.settings, lake, client, "fraud_case")
        assert client.xlen(stream_key("fraud_case")) == 0

    rows = lake.table(SERVED_LOG).scan(row_filter="request_id = 'to-the-lake'").to_arrow().sort_by("row").to_pylist()
    assert first.rows >= 2
    assert (second.rows, second.last_id) == (0, first.last_id)
    assert [row["score"] for row in rows] == answer["predictions"]
    assert rows[0]["views"][0]["created_timestamp"] == from_micros(CREATED_US)
    assert rows[0]["vector"][4] == AVERAGE
    assert rows[1]["views"][0]["event_timestamp"] is None


def test_a_predictor_that_hangs_is_504_and_one_that_is_down_is_503(stack: Stack) -> None:
    """The last test of this service: its predictor does not come back."""
    predictor = stack.service.pids["predictor"]

    os.kill(predictor, signal.SIGSTOP)
    status, answer, _ = stack.post({"instances": [stack.row()]})
    assert (status, answer) == (504, {"error": "the predictor did not answer within 1 s"})

    os.kill(predictor, signal.SIGKILL)
    status, answer, headers = stack.post({"instances": [stack.row()]})
    assert (status, headers["Retry-After"]) == (503, "1")
    assert answer["error"].startswith("the predictor does not answer: ")
