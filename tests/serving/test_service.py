"""The whole way of a request, with a real Redis, two real processes and real HTTP, and of whatever else is sent.

What is wrong is answered in time with why, and the next good request as ever. The one view whose objective is hard has no
fallback model to do without it.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.client import HTTPException
from typing import Any

import fraud_case
import numpy as np
import orjson
import pytest
from hostile_bodies import BODIES, FUZZ, MANGLED, SECRET
from hypothesis import given
from served_process import (
    INFER,
    NAME,
    PATIENT,
    PREDICT,
    Answer,
    Listening,
    require_bounded,
    several,
    wait_until,
)
from serving_stack import AVERAGE, CREATED_US, EVENT_US, KNOWN, STALE, UNKNOWN, Stack, serving_stack

from lockstep.clock import from_micros, parse_time, to_micros
from lockstep.lake import Lake
from lockstep.online.epoch import EpochStore, Mark, ViewEpoch
from lockstep.online.store import connect
from lockstep.serving.artifact import load_artifact, model_digest
from lockstep.serving.budget import MOST_MS
from lockstep.serving.drain import drain
from lockstep.serving.edge import OUTCOME_HEADER
from lockstep.serving.log_rows import SERVED_LOG, stream_key

BUDGET = 0.2
MOST_BYTES = 4 << 20


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    views = (fraud_case.CARDS, fraud_case.TERMINALS.model_copy(update={"freshness_hard": True}))
    budget = timedelta(seconds=BUDGET)
    with serving_stack(
        tmp_path_factory.mktemp("home"), fraud_case.contract(views=views), request_budget=budget
    ) as running:
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
        first = drain(lake, client, "fraud_case")
        second = drain(lake, client, "fraud_case")
        assert client.xlen(stream_key("fraud_case")) == 0

    rows = lake.table(SERVED_LOG).scan(row_filter="request_id = 'to-the-lake'").to_arrow().sort_by("row").to_pylist()
    assert first.rows >= 2
    assert (second.rows, second.last_id) == (0, first.last_id)
    assert [row["score"] for row in rows] == answer["predictions"]
    assert rows[0]["views"][0]["created_timestamp"] == from_micros(CREATED_US)
    assert rows[0]["vector"][4] == AVERAGE
    assert rows[1]["views"][0]["event_timestamp"] is None


def require_refused(answer: Answer) -> None:
    """Require an answer that says what was wrong with the request, and in whose headers nothing of it is."""
    assert 400 <= answer.status < 500, (answer.status, answer.body[:500])
    assert {"error", "reason"} <= answer.document.keys()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers[OUTCOME_HEADER] == "refused"
    assert len(answer.body) < 10_000


@pytest.mark.parametrize("path", [PREDICT, INFER])
@pytest.mark.parametrize("role", ["transformer", "predictor"])
def test_any_body_is_answered_with_what_is_wrong_with_it(stack: Stack, path: str, role: str) -> None:
    asked: Listening = getattr(stack, role)

    @FUZZ
    @given(BODIES | MANGLED)
    def answers(body: bytes) -> None:
        answer = asked.ask(body, PATIENT, path)
        assert str(SECRET) not in str(answer.headers)
        if answer.status != 200:  # a mangled body may still be a good one
            require_refused(answer)

    answers()
    assert stack.good().told == (200, "fresh")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"instances": [{"' + b"x" * 3_000_000 + b'": 1}]}', id="a long name of a field"),
        pytest.param(
            b'{"instances": [{' + b",".join(b'"f%d": 1' % n for n in range(200_000)) + b"}]}", id="many fields"
        ),
        pytest.param(b'{"instances": [' + b"[" * 100_000, id="deep"),
        pytest.param(b'{"instances": [' + b"1," * 1_000_000 + b"1]}", id="many rows"),
        pytest.param(b'{"inputs": [' + b'{"name": "a"},' * 200_000 + b"{}]}", id="many tensors"),
        pytest.param(b'{"request_id": "' + b"y" * 3_000_000 + b'"}', id="a long id"),
        pytest.param(b'{"' + b"z" * 3_000_000 + b'": 1}', id="a long name"),
    ],
)
def test_a_body_that_is_made_to_be_costly_holds_up_nobody(stack: Stack, body: bytes) -> None:
    ask = partial(several, partial(stack.transformer.ask, body, PATIENT))
    answers = ask()
    for answer in answers:
        require_refused(answer)
    require_bounded("a costly body", answers, BUDGET, stack.transformer, ask)


def test_a_body_that_is_too_large_is_not_read(stack: Stack) -> None:
    whole = b'{"instances": [' + b" " * (MOST_BYTES + 1) + b"]}"
    told = stack.transformer.ask(whole, PATIENT)
    assert told.told == (413, "too_large")
    assert told.headers["connection"] == "close"

    def chunks() -> Iterator[bytes]:
        yield head({"transfer-encoding": "chunked"} | PATIENT)
        for _ in range(MOST_BYTES // 65_536 + 2):
            yield b"10000\r\n" + b" " * 65_536 + b"\r\n"
        yield b"0\r\n\r\n"

    assert stack.transformer.send(chunks()).told == (413, "too_large")
    assert stack.transformer.send([head({"content-length": "9" * 400})]).status in {400, 413}
    assert stack.good().told == (200, "fresh")


def head(headers: dict[str, str], path: str = PREDICT, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: here", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def test_a_body_that_does_not_arrive_in_time(stack: Stack) -> None:
    body = orjson.dumps({"instances": [stack.row()]})

    def trickle() -> Iterator[bytes]:
        yield head({"content-length": str(len(body))})
        for start in range(0, len(body), 10):
            yield body[start : start + 10]
            time.sleep(0.03)

    answer = stack.transformer.send(trickle())
    assert answer.told == (408, "too_slow")
    assert answer.headers["connection"] == "close"
    ask = partial(several, lambda: stack.transformer.send([head({"content-length": "1000"}) + body]))
    promised = ask()
    assert {answer.told for answer in promised} == {(408, "too_slow")}
    require_bounded("a body that is shorter than promised", promised, BUDGET, stack.transformer, ask)
    assert stack.good().told == (200, "fresh")


def test_a_body_that_is_longer_than_its_length_is_no_next_request(stack: Stack) -> None:
    body = orjson.dumps({"instances": [stack.row()]})
    for told, statuses in ((20, {400}), (len(body) - 1, {400}), (len(body), {200, 400})):
        sent = head({"content-length": str(told)} | PATIENT) + body + b"}}}"
        assert stack.transformer.send([sent]).status in statuses
    assert stack.good().told == (200, "fresh")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"POST " + PREDICT.encode() + b" HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST " + PREDICT.encode() + b" HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"POST " + PREDICT.encode() + b" HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"POST " + PREDICT.encode() + b" HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}",
        b"POST /\xff HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(stack: Stack, sent: bytes) -> None:
    assert stack.transformer.send([sent]).status == 400
    assert stack.good().told == (200, "fresh")


@pytest.mark.parametrize("sent", [b"", b"POST", head({"content-length": "100"}) + b"{"])
def test_a_caller_who_is_gone_leaves_nothing_behind(stack: Stack, sent: bytes) -> None:
    with pytest.raises((HTTPException, OSError)):
        stack.transformer.send([sent], timeout=0.05)
    assert stack.good().told == (200, "fresh")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", PREDICT, 405),
        ("PUT", INFER, 405),
        ("DELETE", f"/v1/models/{NAME}", 405),
        ("POST", "/metrics", 405),
        ("POST", "/v1/models/other:predict", 404),
        ("POST", f"/v1/models/{NAME}:explain", 404),
        ("POST", f"/v2/repository/models/{NAME}/unload", 404),
        ("POST", f"/v2/models/{NAME}/versions/1/infer", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%00%ff" + "a" * 5_000, 404),
        ("GET", "/openapi.json", 404),
    ],
)
def test_a_method_or_a_path_that_there_is_not(stack: Stack, method: str, path: str, status: int) -> None:
    answer = stack.transformer.ask(b"{}", path=path, method=method)
    assert answer.status == status
    assert answer.document.keys() >= {"error"}
    assert len(answer.body) < 1_000
    assert stack.transformer.state()["ready"]


@pytest.mark.parametrize(
    "asked", ["0", "-5", "1.5", str(MOST_MS + 1), "1e3", "", "\uff19", "1" * 5_000, "1_0", "+5", "0x10"]
)
def test_a_budget_that_is_none(stack: Stack, asked: str) -> None:
    header = asked.encode().decode("latin-1")
    answer = stack.transformer.ask({"instances": [stack.row()]}, {"x-lockstep-budget-ms": header})
    require_refused(answer)
    assert f"from 1 to {MOST_MS}" in answer.document["error"]


@pytest.mark.parametrize("minutes", [10, -10])
def test_a_clock_that_is_not_the_callers(stack: Stack, minutes: int) -> None:
    file = stack.settings.home / "clock"
    right, row = file.read_text(), stack.row()
    file.write_text(str(int(right) + minutes * 60_000_000))
    try:
        answer = stack.transformer.ask({"instances": [row]}, PATIENT)
        assert answer.told == (400, "bad_request")
        assert "further than 300 s from now" in answer.document["error"]
        assert stack.good().told == (200, "fresh")
    finally:
        file.write_text(right)
    assert stack.transformer.ask({"instances": [row]}, PATIENT).told == (200, "fresh")


@pytest.mark.parametrize(("hours", "what"), [(4, "late"), (-2, "unvouched")])
def test_nobody_answers_on_a_view_past_its_hard_objective_without_a_fallback(
    stack: Stack, hours: int, what: str
) -> None:
    with connect(stack.settings) as store:
        epochs = EpochStore(store, "fraud_case")
        epochs.restore("terminals", ViewEpoch(Mark(1, 1, 1, EVENT_US - (hours - 1) * fraud_case.HOUR_US)))
        answer = stack.good()
        epochs.restore("terminals", ViewEpoch(Mark(1, 1, 1, EVENT_US)))
    assert answer.told == (503, "stale_features")
    assert f"terminals is {what}, a hard objective is broken" in answer.document["error"]
    assert answer.headers["retry-after"] == "1"
    wait_until(lambda: stack.good().told == (200, "fresh"))


def test_the_clock_that_a_replay_moves_is_the_service_s_clock(stack: Stack) -> None:
    now = datetime.now(UTC).isoformat()
    status, answer, _ = stack.post({"instances": [stack.row(request_time=now)]})
    assert status == 400
    assert "further than 300 s from now (2018-06-01T" in answer["error"]

    ahead = stack.settings.clock.now() + timedelta(minutes=10)
    assert stack.post({"instances": [stack.row(request_time=ahead.isoformat())]})[0] == 400
    stack.settings.clock.advance_to(ahead)
    assert stack.post({"instances": [stack.row(request_time=ahead.isoformat())]})[0] == 200
