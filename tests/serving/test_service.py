"""The whole way of a request, with a real Redis, two real processes and real HTTP."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import fraud_case
import numpy as np
import orjson
import pytest
from serving_stack import AVERAGE, CREATED_US, EVENT_US, KNOWN, STALE, UNKNOWN, Stack, serving_stack

from lockstep.clock import from_micros, parse_time, to_micros
from lockstep.lake import Lake
from lockstep.serving.artifact import load_artifact, model_digest
from lockstep.serving.drain import drain
from lockstep.serving.log_rows import SERVED_LOG, stream_key


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("home")
    with serving_stack(home, fraud_case.contract(), request_budget=timedelta(seconds=1)) as running:
        yield running


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
        "outcome": "fresh",
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
    assert answer == {
        "error": 'instances[0].customer_id is text, not a whole number of 64 bits: "7"',
        "reason": "bad_request",
    }


def test_the_clock_that_a_replay_moves_is_the_service_s_clock(stack: Stack) -> None:
    now = datetime.now(UTC).isoformat()
    status, answer, _ = stack.post({"instances": [stack.row(request_time=now)]})
    assert status == 400
    assert "further than 300 s from now (2018-06-01T" in answer["error"]

    ahead = stack.settings.clock.now() + timedelta(minutes=10)
    assert stack.post({"instances": [stack.row(request_time=ahead.isoformat())]})[0] == 400
    stack.settings.clock.advance_to(ahead)
    assert stack.post({"instances": [stack.row(request_time=ahead.isoformat())]})[0] == 200


def test_the_predictor_refuses_vectors_of_another_length(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.service.predictor_port}/v1/models/fraud:predict"

    status, answer, _ = stack.post({"instances": [[1.0, None]]}, url=url)

    assert status == 400
    assert answer["error"] == "the instances have the shape [1, 2], the contract has 5 features"


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
