"""The HTTP edge of both our processes, in front of KServe's own application.

What is asked of a model, over either inference protocol, is taken here and handed to the KServe model. With KServe 0.21 and
FastAPI in between, a request spends more CPU on them than on its own work (timing middleware, routing, a pydantic model of each
V2 tensor), unreadable bodies are answered with 500, and a body of any size is read. What else KServe serves, metrics and
metadata, is passed on to it; its endpoints that load and unload models are not, since anybody could call them.

https://kserve.github.io/website/docs/concepts/architecture/data-plane
"""

import asyncio
import enum
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import orjson
from prometheus_client import Counter, Histogram

from lockstep.errors import BadInput, LockstepError, Transient
from lockstep.serving.budget import Budget, budget_of
from lockstep.serving.refusal import CallerGone, Reason, RowRejected, TooLarge, TooSlow, Unavailable

# KServe's own histograms start at 5 ms, which is above what is measured here.
SECONDS = (
    0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075,
    0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0,
)  # fmt: skip

REQUEST_SECONDS = Histogram(
    "lockstep_request_seconds",
    "From a request's head to its answer, by what became of it.",
    ["outcome"],
    buckets=SECONDS,
)
REQUESTS = Counter(
    "lockstep_requests", "Requests by what became of them, the refused ones with the reason.", ["outcome", "reason"]
)

OUTCOME_HEADER = "x-lockstep-outcome"
ANSWERED, REFUSED = "answered", "refused"
_HEARD_SECONDS = 1.0
_TOLD_SECONDS = 10.0
_MOST_TOLD = 1_000  # characters of an error: what was sent is in it, as long as the body may be

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Speaks(enum.Enum):
    """The inference protocols, in JSON."""

    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to a model: its body, the protocol that is spoken, and how long the answer may take."""

    body: bytes
    speaks: Speaks
    budget: Budget


def parse_json(body: bytes) -> Any:
    """Return what a body holds.

    Raises:
        BadInput: it is no JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as broken:
        raise BadInput(f"the body is no JSON: {broken}") from None


class Served(Protocol):
    """What the edge asks of a KServe model."""

    name: str

    async def __call__(self, body: Any, headers: dict[str, str] | None = None) -> tuple[Any, dict[str, str]]:
        """Answer: a JSON document and headers."""
        ...

    def status(self) -> dict[str, Any]:
        """Say how it is: a JSON document with `ready`."""
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]


class Edge:
    """Answers inference requests and readiness probes, and passes on what else KServe has.

    Args:
        app: KServe's application.
        models: what is served.
        budget: of a request that does not ask for more or less.
        most_bytes: the greatest body that is read.
    """

    def __init__(self, app: App, models: Sequence[Served], budget: timedelta, most_bytes: int) -> None:
        self._app = app
        self._models = models
        self._budget = budget
        self._most_bytes = most_bytes
        self._asks: dict[str, tuple[Served, Speaks]] = {}
        self._states: dict[str, Sequence[Served]] = {"/v2/health/ready": models}
        self._passed_on = {"/", "/metrics", "/v1/models", "/v2", "/v2/health/live", "/v2/models"}
        for model in models:
            self._asks[f"/v1/models/{model.name}:predict"] = (model, Speaks.V1)
            self._asks[f"/v2/models/{model.name}/infer"] = (model, Speaks.V2)
            self._states[f"/v1/models/{model.name}"] = [model]
            self._states[f"/v2/models/{model.name}/ready"] = [model]
            self._passed_on.add(f"/v2/models/{model.name}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        if path in self._asks:
            if method != "POST":
                await _send(send, _wrong_method("POST"))
                return
            model, speaks = self._asks[path]
            answer = await self._ask(model, speaks, scope, receive)
            await (
                _send_and_hear_out(send, receive, answer) if "connection" in answer.headers else _send(send, answer)
            )
        elif path in self._states or path in self._passed_on:
            if method not in {"GET", "HEAD"}:
                await _send(send, _wrong_method("GET"))
            elif path in self._states:
                await _send(send, _state_of(self._states[path]))
            else:
                await self._app(scope, receive, send)
        else:
            await _send(send, _not_found(path, self._models))

    async def _ask(self, model: Served, speaks: Speaks, scope: Scope, receive: Receive) -> _Answer:
        started = time.perf_counter()
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            budget = budget_of(headers, self._budget, asyncio.get_running_loop().time())
            body = await self._body(headers, receive, budget)
            document, told = await model(Asked(body, speaks, budget), headers)
            answer = _json(200, document, told)
            outcome, reason = told.get(OUTCOME_HEADER, ANSWERED), ""
        except Exception as failure:  # noqa: BLE001 - whatever it is, the caller is told that there is no score
            answer, reason = _refusal(failure)
            outcome = REFUSED
        REQUESTS.labels(outcome, reason).inc()
        REQUEST_SECONDS.labels(outcome).observe(time.perf_counter() - started)
        return answer

    async def _body(self, headers: Mapping[str, str], receive: Receive, budget: Budget) -> bytes:
        told = headers.get("content-length", "")
        # A length of more digits than any that is read is not worth the time to make a number of it.
        if told.isdecimal() and (len(told) > len(str(self._most_bytes)) or int(told) > self._most_bytes):
            raise TooLarge(f"a body of {told[:20]} bytes is larger than the {self._most_bytes} that are read")
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout_at(budget.end):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise CallerGone("the caller is gone")
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > self._most_bytes:
                        raise TooLarge(f"the body is larger than the {self._most_bytes} bytes that are read")
                    if not message.get("more_body", False):
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError:
            raise TooSlow(f"the body did not arrive within the budget of {budget.seconds:g} s") from None


def _refusal(failure: Exception) -> tuple[_Answer, Reason]:
    """Return what a failure is answered with, and the reason to count."""
    status, reason = _meaning(failure)
    headers = {OUTCOME_HEADER: REFUSED}
    if status == 503:
        wait = failure.retry_after if isinstance(failure, Unavailable) else 1.0
        headers["retry-after"] = str(math.ceil(wait))
    if status in {408, 413}:  # the rest of the body is not worth a connection
        headers["connection"] = "close"
    text = str(failure) if isinstance(failure, LockstepError) else "something here is wrong; the service's log has it"
    if len(text) > _MOST_TOLD:
        text = f"{text[:_MOST_TOLD]}..."
    if reason is Reason.FAILED:
        logging.getLogger(__name__).error("a request failed", exc_info=failure)
    elif isinstance(failure, Unavailable):
        _tell(failure)
    told: dict[str, Any] = {"error": text, "reason": reason}
    if isinstance(failure, RowRejected):
        told["rejected"] = failure.rows
    return _json(status, told, headers), reason


_told: dict[Reason, float] = {}


def _tell(failure: Unavailable) -> None:
    """Log why requests are refused, once in a while: an outage has thousands of them a second, and a metric counts those."""
    now = time.monotonic()
    if now - _told.get(failure.reason, -math.inf) >= _TOLD_SECONDS:
        _told[failure.reason] = now
        logging.getLogger(__name__).warning("%s: %s", failure.reason, failure.detail or failure)


def _meaning(failure: Exception) -> tuple[int, Reason]:
    if isinstance(failure, Unavailable):
        return 503, failure.reason
    for kind, status, reason in _MEANINGS:
        if isinstance(failure, kind):
            return status, reason
    return 500, Reason.FAILED


# The most special class counts, not the first.
_MEANINGS = (
    (RowRejected, 422, Reason.ROW_REJECTED),
    (TooLarge, 413, Reason.TOO_LARGE),
    (TooSlow, 408, Reason.TOO_SLOW),
    (CallerGone, 400, Reason.CALLER_GONE),
    (BadInput, 400, Reason.BAD_REQUEST),
    (Transient, 503, Reason.FAILED),
)


def _state_of(models: Sequence[Served]) -> _Answer:
    states = [model.status() for model in models]
    status = 200 if all(state["ready"] for state in states) else 503
    return _json(status, states[0] if len(states) == 1 else {"ready": status == 200, "models": states})


def _not_found(path: str, models: Sequence[Served]) -> _Answer:
    names = ", ".join(model.name for model in models)
    told = {"error": f"there is nothing at {path[:200]}; models here: {names}", "reason": Reason.NOT_FOUND}
    return _json(404, told)


def _wrong_method(allowed: str) -> _Answer:
    told = {"error": f"only {allowed} is answered here", "reason": Reason.WRONG_METHOD}
    return _json(405, told, {"allow": allowed})


def _json(status: int, document: Any, headers: Mapping[str, str] | None = None) -> _Answer:
    return _Answer(status, orjson.dumps(document), headers or {})


async def _send_and_hear_out(send: Send, receive: Receive, answer: _Answer) -> None:
    """Send an answer to a request that is still arriving, and close the connection once it has, or a moment later.

    Closed with bytes unread it would be reset, and a caller who still sends would never see the answer (RFC 9112, 9.6).
    """
    await _send(send, answer, last=False)
    with suppress(TimeoutError):
        async with asyncio.timeout(_HEARD_SECONDS):
            while (await receive()).get("more_body", False):
                pass
    await send({"type": "http.response.body"})


async def _send(send: Send, answer: _Answer, *, last: bool = True) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body))]
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": not last})
