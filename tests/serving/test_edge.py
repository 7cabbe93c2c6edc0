"""The HTTP edge over ASGI, in process: what is answered, with which status and reason, what is passed on, and what is counted."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import kserve
import orjson
import pytest
from fastapi import FastAPI
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.v1_endpoints import register_v1_endpoints
from kserve.protocol.rest.v2_endpoints import register_v2_endpoints
from prometheus_client import REGISTRY

from lockstep.errors import BadInput, LostStore, NotYetSupported, SchemaDrift, Terminal, Transient
from lockstep.serving import edge
from lockstep.serving.budget import Budget
from lockstep.serving.edge import OUTCOME_HEADER, Asked, Edge, Speaks
from lockstep.serving.refusal import Reason, RowRejected, TooLarge, TooSlow, Unavailable

V1, V2 = "/v1/models/m:predict", "/v2/models/m/infer"
MOST_BYTES = 1000
BUDGET = timedelta(seconds=10)
HEARD_SECONDS = 0.05
pytestmark = pytest.mark.filterwarnings("ignore:ORJSONResponse is deprecated")  # KServe 0.21 answers with it


@pytest.fixture(autouse=True)
def hears_out_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still sent after a refusal is waited for less long."""
    monkeypatch.setattr(edge, "_HEARD_SECONDS", HEARD_SECONDS)


@dataclass
class Model:
    """Keeps what it is asked; answers with its length, or fails."""

    name: str = "m"
    failure: BaseException | None = None
    told: dict[str, str] = field(default_factory=dict)
    document: Any = None
    wrong: str = ""
    asked: list[Asked] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    async def __call__(self, body: Any, headers: dict[str, str] | None = None) -> tuple[Any, dict[str, str]]:
        self.asked.append(body)
        self.headers.append(headers or {})
        if self.failure:
            raise self.failure
        return self.document or {"length": len(body.body)}, self.told

    def status(self) -> dict[str, Any]:
        return {"name": self.name, "ready": not self.wrong} | ({"wrong": self.wrong} if self.wrong else {})


@dataclass
class Behind:
    """Stands where KServe's application is: answers 299, and keeps what reaches it."""

    reached: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append((scope.get("method", scope["type"]), scope.get("path", "")))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 299, "headers": []})
            await send({"type": "http.response.body", "body": b""})


def edge_of(*models: Model, app: Any = None, budget: timedelta = BUDGET) -> Edge:
    return Edge(app or Behind(), models, budget, MOST_BYTES)


def ask(asked: Edge, path: str, method: str = "POST", **options: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport: Any = httpx.ASGITransport(asked)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


def counted(outcome: str, reason: str = "") -> float:
    return REGISTRY.get_sample_value("lockstep_requests_total", {"outcome": outcome, "reason": reason}) or 0.0


def timed(outcome: str) -> float:
    return REGISTRY.get_sample_value("lockstep_request_seconds_count", {"outcome": outcome}) or 0.0


@pytest.mark.parametrize(("path", "speaks"), [(V1, Speaks.V1), (V2, Speaks.V2)])
def test_a_model_gets_the_body_as_it_came_the_protocol_and_the_budget(path: str, speaks: Speaks) -> None:
    model = Model(told={"server-timing": "read;dur=1"})

    answer = ask(edge_of(model, Model("other")), path, content=b"[1, 2]", headers={"X-Request-Id": "r", "b": b"\xe9"})

    assert (answer.status_code, answer.json()) == (200, {"length": 6})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["server-timing"] == "read;dur=1"
    (asked,) = model.asked
    assert (asked.body, asked.speaks, asked.budget.seconds) == (b"[1, 2]", speaks, 10.0)
    assert (model.headers[0]["x-request-id"], model.headers[0]["b"]) == ("r", "\xe9")


def test_a_request_says_how_long_its_answer_may_take() -> None:
    model = Model()

    assert ask(edge_of(model), V1, headers={"x-lockstep-budget-ms": "50"}).status_code == 200
    refused = ask(edge_of(model), V1, headers={"x-lockstep-budget-ms": "soon"})

    (asked,) = model.asked
    assert (asked.budget.seconds, asked.budget.usual) == (0.05, 10.0)
    assert (refused.status_code, refused.json()["reason"]) == (400, "bad_request")


FAILURES = [
    (RowRejected("no", [1]), 422, "row_rejected"),
    (TooLarge("no"), 413, "too_large"),
    (TooSlow("no"), 408, "too_slow"),
    (BadInput("no"), 400, "bad_request"),
    *[(Unavailable(reason, "no"), 503, reason.value) for reason in Reason],
    (Transient("no"), 503, "failed"),
    (SchemaDrift("no"), 500, "failed"),
    (LostStore("no"), 500, "failed"),
    (NotYetSupported("no"), 500, "failed"),
    (Terminal("no"), 500, "failed"),
]


@pytest.mark.parametrize(("failure", "status", "reason"), FAILURES)
def test_a_failure_has_the_status_and_the_reason_of_its_most_special_class(
    failure: Exception, status: int, reason: str
) -> None:
    before = counted("refused", reason), timed("refused")

    answer = ask(edge_of(Model(failure=failure)), V1)

    more = {"rejected": [1]} if isinstance(failure, RowRejected) else {}
    assert (answer.status_code, answer.json()) == (status, {"error": "no", "reason": reason} | more)
    assert answer.headers[OUTCOME_HEADER] == "refused"
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)
    assert answer.headers.get("connection") == ("close" if status in {408, 413} else None)
    assert (counted("refused", reason), timed("refused")) == (before[0] + 1, before[1] + 1)


def test_who_is_refused_for_now_is_told_in_whole_seconds_when_to_ask_again() -> None:
    failure = Unavailable(Reason.STORE_CIRCUIT_OPEN, "no", hint="wait", retry_after=2.1)

    answer = ask(edge_of(Model(failure=failure)), V2)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    assert answer.json() == {"error": "no\n\nHint: wait", "reason": "store_circuit_open"}


@pytest.mark.parametrize(
    "failure", [KeyError("secret"), ValueError("secret"), OSError("secret"), MemoryError("secret")]
)
def test_an_error_that_nobody_foresaw_is_in_the_log_and_not_in_the_answer(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ask(edge_of(Model(failure=failure)), V1)

    assert answer.status_code == 500
    assert answer.json() == {"error": "something here is wrong; the service's log has it", "reason": "failed"}
    assert "secret" not in str(answer.headers)
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None
    assert record.exc_info[1] is failure


@pytest.mark.parametrize(("length", "shown"), [(1000, "x" * 1000), (1001, "x" * 1000 + "...")])
def test_of_a_long_error_the_beginning_is_told(length: int, shown: str) -> None:
    answer = ask(edge_of(Model(failure=BadInput("x" * length))), V1)

    assert (answer.status_code, answer.json()["error"]) == (400, shown)


def test_why_requests_are_refused_is_logged_once_in_ten_seconds_a_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr(edge, "_told", {})
    monkeypatch.setattr(edge, "time", SimpleNamespace(monotonic=lambda: now, perf_counter=time.perf_counter))
    known = Unavailable(Reason.STORE_UNAVAILABLE, "the store is down", detail="connection to 10.0.0.7 refused")
    bare = Unavailable(Reason.STALE_FEATURES, "cards is late")

    def told(failure: Unavailable) -> list[str]:
        caplog.clear()
        assert "10.0.0.7" not in ask(edge_of(Model(failure=failure)), V1).text
        return [record.getMessage() for record in caplog.records if record.name == edge.__name__]

    of_the_store = ["store_unavailable: connection to 10.0.0.7 refused"]
    assert [told(known), told(known), told(bare)] == [of_the_store, [], ["stale_features: cards is late"]]
    now += 9.9
    assert told(known) == []
    now += 0.2
    assert [told(known), told(known)] == [of_the_store, []]


def test_an_answer_that_is_no_json_is_a_failure_of_ours() -> None:
    answer = ask(edge_of(Model(document={"score": object()})), V1)

    assert (answer.status_code, answer.json()["reason"]) == (500, "failed")


def test_an_answer_is_counted_by_the_outcome_that_the_model_tells() -> None:
    before = counted("flagged"), timed("flagged"), counted("answered"), timed("answered")

    assert ask(edge_of(Model(told={OUTCOME_HEADER: "flagged"})), V1).headers[OUTCOME_HEADER] == "flagged"
    ask(edge_of(Model()), V1)

    after = counted("flagged"), timed("flagged"), counted("answered"), timed("answered")
    assert after == tuple(number + 1 for number in before)


def test_a_request_that_is_cancelled_is_not_answered() -> None:
    with pytest.raises(asyncio.CancelledError):
        ask(edge_of(Model(failure=asyncio.CancelledError())), V1)


def test_a_body_of_the_most_bytes_is_read_and_one_more_is_not() -> None:
    model = Model()

    assert ask(edge_of(model), V1, content=b"x" * MOST_BYTES).status_code == 200
    answer = ask(edge_of(model), V1, content=b"x" * (MOST_BYTES + 1))

    assert (answer.status_code, answer.json()["reason"]) == (413, "too_large")
    assert "1001 bytes is larger than the 1000 that are read" in answer.json()["error"]
    assert len(model.asked) == 1


class Wire:
    """A connection of which the test says what arrives, and when."""

    def __init__(self, *chunks: bytes, end: bool = True, headers: Mapping[str, str] | None = None) -> None:
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
        ]
        if end:
            self.messages.append({"type": "http.request"})
        self.taken = 0
        self.taken_before_the_answer = 0
        self.sent: list[Any] = []
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        self.scope = {"type": "http", "path": V1, "method": "POST", "headers": raw}

    async def receive(self) -> Any:
        if self.taken == len(self.messages):
            await asyncio.Event().wait()  # nothing more ever arrives
        self.taken += 1
        return self.messages[self.taken - 1]

    async def send(self, message: Any) -> None:
        if not self.sent:
            self.taken_before_the_answer = self.taken
        self.sent.append(message)

    def ask(self, asked: Callable[..., Awaitable[None]]) -> tuple[int, dict[str, Any]]:
        asyncio.run(asked(self.scope, self.receive, self.send))  # type: ignore[arg-type]
        start, *bodies = self.sent
        assert not bodies[-1].get("more_body", False)
        return start["status"], orjson.loads(b"".join(message.get("body", b"") for message in bodies))


def test_a_body_in_chunks_is_one_body() -> None:
    model = Model()

    assert Wire(b"[1,", b"", b" 2", b"]").ask(edge_of(model)) == (200, {"length": 6})
    assert Wire().ask(edge_of(model)) == (200, {"length": 0})
    assert [asked.body for asked in model.asked] == [b"[1, 2]", b""]


def test_a_body_in_chunks_is_read_up_to_the_limit_and_no_further() -> None:
    model, wire = Model(), Wire(*[b"x" * 400] * 50)

    status, answer = wire.ask(edge_of(model))

    assert (status, answer["reason"], wire.taken_before_the_answer) == (413, "too_large", 3)
    assert wire.taken == 51, "closed with bytes unread, the connection would be reset before the answer is seen"
    assert model.asked == []


@pytest.mark.parametrize("length", ["1001", "9" * 5000])
def test_a_body_that_says_it_is_too_large_is_not_read_at_all(length: str) -> None:
    wire = Wire(b"x", headers={"content-length": length})

    status, answer = wire.ask(edge_of(Model()))

    assert (status, answer["reason"], wire.taken_before_the_answer) == (413, "too_large", 0)
    assert length[:20] in answer["error"]
    assert len(answer["error"]) < 100


@pytest.mark.parametrize("length", ["", "-1", "many", "²", "1e9", "1"])
def test_a_length_that_says_nothing_is_not_believed(length: str) -> None:
    assert Wire(b"xyz", headers={"content-length": length}).ask(edge_of(Model())) == (200, {"length": 3})


def test_a_body_that_does_not_arrive_is_waited_for_as_long_as_its_answer_may_take() -> None:
    model, wire = Model(), Wire(b"[1,", end=False, headers={"x-lockstep-budget-ms": "20"})

    status, answer = wire.ask(edge_of(model))

    assert (status, answer["reason"]) == (408, "too_slow")
    assert answer["error"] == "the body did not arrive within the budget of 0.02 s"
    assert model.asked == []


@pytest.mark.parametrize(("seconds", "status"), [(9.9, 200), (10.1, 408)])
def test_a_body_may_take_all_of_the_budget(seconds: float, status: int) -> None:
    model, wire = Model(), Wire(b"x")

    async def passes() -> Any:
        if not wire.taken:
            loop = asyncio.get_running_loop()
            now = loop.time
            loop.time = lambda: now() + seconds  # type: ignore[method-assign]
            await asyncio.sleep(0.001)
        return await Wire.receive(wire)

    wire.receive = passes  # type: ignore[method-assign]

    assert wire.ask(edge_of(model))[0] == status
    assert len(model.asked) == (status == 200)


def test_a_caller_who_is_gone_before_the_body_is_there_is_not_scored() -> None:
    model, wire = Model(), Wire(b"[1,", end=False)
    wire.messages.append({"type": "http.disconnect"})

    assert wire.ask(edge_of(model)) == (400, {"error": "the caller is gone", "reason": "caller_gone"})
    assert model.asked == []


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_a_model_is_asked_by_post_alone(path: str, method: str) -> None:
    model, behind = Model(), Behind()

    answer = ask(edge_of(model, app=behind), path, method)

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert method == "HEAD" or answer.json()["reason"] == "wrong_method"
    assert (model.asked, behind.reached) == ([], [])


@pytest.mark.parametrize(
    "path", ["/v1/models/m", "/v2/models/m/ready", "/v2/health/ready", "/metrics", "/v2/models/m"]
)
def test_a_state_is_asked_by_get_alone(path: str) -> None:
    behind = Behind()

    for method in ("POST", "PUT", "DELETE"):
        answer = ask(edge_of(Model(), app=behind), path, method)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert behind.reached == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/n:predict",
        "/v1/models/m:explain",
        "/v1/models/m:predict/",
        "/v1/models/M:predict",
        "/v2/models/m/versions/1/infer",
        "/v2/models/m/infer/",
        "/nothing",
    ],
)
def test_what_there_is_not_is_answered_404_with_the_models_that_there_are(path: str) -> None:
    behind = Behind()

    answer = ask(edge_of(Model(), Model("m-fallback"), app=behind), path)

    assert answer.status_code == 404
    told = f"there is nothing at {path}; models here: m, m-fallback"
    assert answer.json() == {"error": told, "reason": "not_found"}
    assert behind.reached == []


def test_a_long_path_is_not_answered_with_all_of_it() -> None:
    assert len(ask(edge_of(Model()), "/" + "x" * 5000).content) < 300


@pytest.mark.parametrize("path", ["/v1/models/m", "/v2/models/m/ready"])
def test_a_model_s_readiness_is_its_own(path: str) -> None:
    up, down = Model(), Model("other", wrong="the store is gone")

    ready = ask(edge_of(up, down), path, "GET")
    missing = ask(edge_of(up, down), path.replace("models/m", "models/other"), "GET")

    assert (ready.status_code, ready.json()) == (200, {"name": "m", "ready": True})
    assert (missing.status_code, missing.json()["wrong"]) == (503, "the store is gone")


@pytest.mark.parametrize("path", ["/v1/models/m", "/v2/models/m/ready", "/v2/health/ready"])
def test_a_probe_may_ask_for_the_head_alone(path: str) -> None:
    assert ask(edge_of(Model()), path, "HEAD").status_code == 200
    assert ask(edge_of(Model(wrong="the store is gone")), path, "HEAD").status_code == 503


def test_the_process_is_ready_when_each_of_its_models_is() -> None:
    path, up, down = "/v2/health/ready", Model(), Model("other", wrong="the store is gone")

    assert ask(edge_of(up), path, "GET").json() == {"name": "m", "ready": True}
    assert ask(edge_of(up, Model("other")), path, "GET").json()["ready"] is True
    answer = ask(edge_of(up, down), path, "GET")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "models": [up.status(), down.status()]})


PASSED_ON = {"/", "/metrics", "/v1/models", "/v2", "/v2/health/live", "/v2/models", "/v2/models/m"}


def test_what_is_passed_on_reaches_kserve() -> None:
    behind = Behind()
    before = edge_of(Model(), app=behind)

    assert {ask(before, path, "GET").status_code for path in PASSED_ON} == {299}
    assert {path for _, path in behind.reached} == PASSED_ON


def test_what_is_no_request_reaches_kserve() -> None:
    behind = Behind()

    asyncio.run(edge_of(Model(), app=behind)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]

    assert behind.reached == [("lifespan", "")]


def kserve_s() -> FastAPI:
    """Return KServe's own application, with everything that it serves."""
    app, models = FastAPI(), kserve.ModelRepository()
    models.update(kserve.Model("m"))
    plane = DataPlane(models)
    extension = ModelRepositoryExtension(models)
    register_v1_endpoints(app, plane, extension)
    register_v2_endpoints(app, plane, extension)
    return app


def test_of_all_that_kserve_serves_nothing_but_metadata_can_be_reached() -> None:
    behind = Behind()
    before = edge_of(Model(), app=behind)
    served = [
        (method.upper(), path.format(model_name="m", model_version="1"))
        for path, methods in kserve_s().openapi()["paths"].items()
        for method in methods
    ]
    assert ("POST", "/v2/repository/models/m/unload") in served
    assert ("POST", "/v2/repository/models/m/load") in served

    for method, path in served:
        ask(before, path, method)

    assert {method for method, _ in behind.reached} <= {"GET", "HEAD"}
    assert {path for _, path in behind.reached} <= PASSED_ON


def test_a_budget_is_counted_from_the_head_of_the_request() -> None:
    model = Model()

    async def late() -> float:
        wire = Wire(b"x")
        receive, start = wire.receive, asyncio.get_running_loop().time()

        async def slowly() -> Any:
            await asyncio.sleep(0.02)
            return await receive()

        await edge_of(model)(wire.scope, slowly, wire.send)
        return start

    start = asyncio.run(late())

    (budget,) = [asked.budget for asked in model.asked]
    assert budget == Budget(budget.start, 10.0, 10.0)
    assert 0 <= budget.start - start < 0.02
