"""Whatever is sent to a service is answered in time with what was wrong, and the next good request is answered as ever.

A real transformer, predictor and Redis. The one view whose objective is hard has no fallback model to do without it.
"""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import fraud_case
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_process import (
    INFER,
    NAME,
    PATIENT,
    PREDICT,
    Answer,
    ServedProcess,
    require_bounded,
    several,
    wait_until,
)
from serving_stack import EVENT_US, KNOWN, TODAY, fill

from lockstep.local import LocalRedis
from lockstep.local.ports import free_port
from lockstep.online.epoch import EpochStore, Mark, ViewEpoch
from lockstep.online.store import connect
from lockstep.serving.budget import MOST_MS
from lockstep.serving.edge import OUTCOME_HEADER
from lockstep.settings import Settings

BUDGET = 0.2
MOST_BYTES = 4 << 20
SECRET = 727_272_727_272  # an entity that nothing but a body may name
EXAMPLES = 150


class Pair:
    """A transformer and its predictor."""

    def __init__(self, settings: Settings, transformer: ServedProcess, predictor: ServedProcess) -> None:
        self.settings = settings
        self.transformer = transformer
        self.predictor = predictor

    def row(self, **changes: Any) -> dict[str, Any]:
        row = {"customer_id": KNOWN, "terminal_id": 5, "amount_cents": 1250}
        return row | {"request_time": self.settings.clock.now().isoformat()} | changes

    def good(self) -> Answer:
        return self.transformer.ask({"instances": [self.row()]}, PATIENT)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    home: Path = tmp_path_factory.mktemp("home")
    views = (fraud_case.CARDS, fraud_case.TERMINALS.model_copy(update={"freshness_hard": True}))
    model_dir = fraud_case.write_model(home / "model", fraud_case.contract(views=views), fraud_case.fitted())
    limits = {"request_budget": timedelta(seconds=BUDGET)}
    stated = Settings(home=home, use_case="fraud_case", clock_file=home / "clock", **limits)
    stated.clock.advance_to(TODAY)
    with ExitStack() as stack:
        store = stack.enter_context(LocalRedis(home / "store", free_port()))
        there = store.settings(stated.resolved())
        fill(there)
        predictor = stack.enter_context(ServedProcess("predictor", there, model_dir))
        transformer = stack.enter_context(
            ServedProcess("transformer", there, model_dir, predictor_port=predictor.port)
        )
        predictor.wait_ready()
        transformer.wait_ready()
        yield Pair(there, transformer, predictor)


def require_refused(answer: Answer) -> None:
    """Require an answer that says what was wrong with the request, and in whose headers nothing of it is."""
    assert 400 <= answer.status < 500, (answer.status, answer.body[:500])
    assert {"error", "reason"} <= answer.document.keys()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers[OUTCOME_HEADER] == "refused"
    assert len(answer.body) < 10_000


TIMES = st.sampled_from(
    ["2018-06-01T12:00:00Z", "2018-06-01T12:00:00", "", "now", "9999-12-31T23:59:59-14:00", "\ud7ff"]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(max_size=20),
    TIMES,
    st.sampled_from([SECRET, str(SECRET), KNOWN, 5, 1 << 63, -(1 << 63), "x" * 200_000]),
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
FIELDS = {"customer_id": "INT64", "terminal_id": "INT64", "amount_cents": "INT64", "request_time": "BYTES"}
GOOD = {"customer_id": SECRET, "terminal_id": 5, "amount_cents": 1250, "request_time": "2018-06-01T12:00:00Z"}
ROWS = st.fixed_dictionaries({}, optional=dict.fromkeys((*FIELDS, "extra"), ANYTHING))
NEARLY = st.dictionaries(st.sampled_from([*FIELDS]), ANYTHING, min_size=1, max_size=2).map(
    lambda wrong: {"instances": [GOOD, GOOD | wrong]}
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from([*FIELDS, "extra"]) | ANYTHING,
        "datatype": st.sampled_from(["INT64", "BYTES", "FP64"]) | ANYTHING,
        "shape": st.lists(st.integers(-1, 3) | st.just(1 << 62), max_size=3) | ANYTHING,
        "data": st.lists(ANYTHING, max_size=3) | ANYTHING,
        "parameters": ANYTHING,
    },
)
OF_V1 = st.fixed_dictionaries(
    {}, optional={"instances": st.lists(ROWS, max_size=3) | ANYTHING, "request_id": ANYTHING}
)
OF_V2 = st.fixed_dictionaries(
    {}, optional={"inputs": st.lists(TENSORS, max_size=5) | ANYTHING, "id": ANYTHING, "outputs": ANYTHING}
)


def text_of(document: Any) -> bytes:
    """Return it as JSON, also what JSON has no number for, as many a writer does."""
    return json.dumps(document).encode()


BODIES = st.one_of(st.binary(max_size=200), *(each.map(text_of) for each in (NEARLY, OF_V1, OF_V2, ANYTHING)))
MANGLED = st.builds(
    lambda body, at, byte: body[: at % (len(body) + 1)] + byte + body[at % (len(body) + 1) :],
    st.one_of(each.map(text_of) for each in (NEARLY, OF_V1, OF_V2)),
    st.integers(0, 1 << 20),
    st.binary(max_size=3),
)
FUZZ = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.parametrize("path", [PREDICT, INFER])
@pytest.mark.parametrize("role", ["transformer", "predictor"])
def test_any_body_is_answered_with_what_is_wrong_with_it(pair: Pair, path: str, role: str) -> None:
    asked: ServedProcess = getattr(pair, role)

    @FUZZ
    @given(BODIES | MANGLED)
    def answers(body: bytes) -> None:
        answer = asked.ask(body, PATIENT, path)
        assert str(SECRET) not in str(answer.headers)
        if answer.status != 200:  # a mangled body may still be a good one
            require_refused(answer)

    answers()
    assert pair.good().told == (200, "fresh")


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
def test_a_body_that_is_made_to_be_costly_holds_up_nobody(pair: Pair, body: bytes) -> None:
    ask = partial(several, partial(pair.transformer.ask, body, PATIENT))
    answers = ask()
    for answer in answers:
        require_refused(answer)
    require_bounded("a costly body", answers, BUDGET, pair.transformer, ask)


def test_a_body_that_is_too_large_is_not_read(pair: Pair) -> None:
    whole = b'{"instances": [' + b" " * (MOST_BYTES + 1) + b"]}"
    told = pair.transformer.ask(whole, PATIENT)
    assert told.told == (413, "too_large")
    assert told.headers["connection"] == "close"

    def chunks() -> Iterator[bytes]:
        yield head({"transfer-encoding": "chunked"} | PATIENT)
        for _ in range(MOST_BYTES // 65_536 + 2):
            yield b"10000\r\n" + b" " * 65_536 + b"\r\n"
        yield b"0\r\n\r\n"

    assert pair.transformer.send(chunks()).told == (413, "too_large")
    assert pair.transformer.send([head({"content-length": "9" * 400})]).status in {400, 413}
    assert pair.good().told == (200, "fresh")


def head(headers: dict[str, str], path: str = PREDICT, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: here", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def test_a_body_that_does_not_arrive_in_time(pair: Pair) -> None:
    body = orjson.dumps({"instances": [pair.row()]})

    def trickle() -> Iterator[bytes]:
        yield head({"content-length": str(len(body))})
        for start in range(0, len(body), 10):
            yield body[start : start + 10]
            time.sleep(0.03)

    answer = pair.transformer.send(trickle())
    assert answer.told == (408, "too_slow")
    assert answer.headers["connection"] == "close"
    ask = partial(several, lambda: pair.transformer.send([head({"content-length": "1000"}) + body]))
    promised = ask()
    assert {answer.told for answer in promised} == {(408, "too_slow")}
    require_bounded("a body that is shorter than promised", promised, BUDGET, pair.transformer, ask)
    assert pair.good().told == (200, "fresh")


def test_a_body_that_is_longer_than_its_length_is_no_next_request(pair: Pair) -> None:
    body = orjson.dumps({"instances": [pair.row()]})
    for told, statuses in ((20, {400}), (len(body) - 1, {400}), (len(body), {200, 400})):
        sent = head({"content-length": str(told)} | PATIENT) + body + b"}}}"
        assert pair.transformer.send([sent]).status in statuses
    assert pair.good().told == (200, "fresh")


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
def test_what_is_no_http_is_refused(pair: Pair, sent: bytes) -> None:
    assert pair.transformer.send([sent]).status == 400
    assert pair.good().told == (200, "fresh")


@pytest.mark.parametrize("sent", [b"", b"POST", head({"content-length": "100"}) + b"{"])
def test_a_caller_who_is_gone_leaves_nothing_behind(pair: Pair, sent: bytes) -> None:
    with pytest.raises((HTTPException, OSError)):
        pair.transformer.send([sent], timeout=0.05)
    assert pair.good().told == (200, "fresh")


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
def test_a_method_or_a_path_that_there_is_not(pair: Pair, method: str, path: str, status: int) -> None:
    answer = pair.transformer.ask(b"{}", path=path, method=method)
    assert answer.status == status
    assert answer.document.keys() >= {"error"}
    assert len(answer.body) < 1_000
    assert pair.transformer.state()["ready"]


@pytest.mark.parametrize(
    "asked", ["0", "-5", "1.5", str(MOST_MS + 1), "1e3", "", "\uff19", "1" * 5_000, "1_0", "+5", "0x10"]
)
def test_a_budget_that_is_none(pair: Pair, asked: str) -> None:
    header = asked.encode().decode("latin-1")
    answer = pair.transformer.ask({"instances": [pair.row()]}, {"x-lockstep-budget-ms": header})
    require_refused(answer)
    assert f"from 1 to {MOST_MS}" in answer.document["error"]


@pytest.mark.parametrize("minutes", [10, -10])
def test_a_clock_that_is_not_the_callers(pair: Pair, minutes: int) -> None:
    file = pair.settings.home / "clock"
    right, row = file.read_text(), pair.row()
    file.write_text(str(int(right) + minutes * 60_000_000))
    try:
        answer = pair.transformer.ask({"instances": [row]}, PATIENT)
        assert answer.told == (400, "bad_request")
        assert "further than 300 s from now" in answer.document["error"]
        assert pair.good().told == (200, "fresh")
    finally:
        file.write_text(right)
    assert pair.transformer.ask({"instances": [row]}, PATIENT).told == (200, "fresh")


@pytest.mark.parametrize(("hours", "what"), [(4, "late"), (-2, "unvouched")])
def test_nobody_answers_on_a_view_past_its_hard_objective_without_a_fallback(
    pair: Pair, hours: int, what: str
) -> None:
    with connect(pair.settings) as store:
        epochs = EpochStore(store, "fraud_case")
        epochs.restore("terminals", ViewEpoch(Mark(1, 1, 1, EVENT_US - (hours - 1) * fraud_case.HOUR_US)))
        answer = pair.good()
        epochs.restore("terminals", ViewEpoch(Mark(1, 1, 1, EVENT_US)))
    assert answer.told == (503, "stale_features")
    assert f"terminals is {what}, a hard objective is broken" in answer.document["error"]
    assert answer.headers["retry-after"] == "1"
    wait_until(lambda: pair.good().told == (200, "fresh"))
