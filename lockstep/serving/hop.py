"""The hop from the transformer to the predictor: connections that are kept, and what each answer means."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import numpy as np
import orjson
from numpy.typing import NDArray

from lockstep.serving.breaker import Breaker
from lockstep.serving.budget import Budget, Wait
from lockstep.serving.metrics import PREDICTOR_SECONDS
from lockstep.serving.refusal import Reason, Unavailable
from lockstep.settings import Settings

REQUEST_ID_HEADER = "x-request-id"
_JSON = "application/json"
_KEPT_SECONDS = 60.0  # KServe's server closes an idle connection after 65 s; ours must be the first
_CONNECTIONS = 128
_PAUSE_SECONDS = 0.005


@dataclass
class _Kept:
    """Whether a request went over a connection that was kept from an earlier one."""

    connection: bool = False


class PredictorHop:
    """Asks one predictor for scores; open while the `async with` block lasts.

    Args:
        address: its host and port.
        digest: which model it must be serving.
        settings: how many failures open the circuit, and for how long.
    """

    def __init__(self, address: str, digest: str, settings: Settings) -> None:
        self._base = f"http://{address}"
        self._digest = digest
        self._breaker = Breaker(
            "predictor", Reason.PREDICTOR_CIRCUIT_OPEN, settings.circuit_failures, settings.circuit_pause
        )

    async def __aenter__(self) -> Self:
        # What limits the time of a call is its budget.
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_KEPT_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[_noting_kept_connections()],
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def state(self, name: str) -> Mapping[str, Any]:
        """Return what the predictor says of a model that it serves, {} where it says nothing that can be read.

        Raises:
            aiohttp.ClientError: it does not answer.
        """
        async with self._http.get(f"{self._base}/v1/models/{name}", allow_redirects=False) as answer:
            return _document(await answer.read())

    async def score(self, name: str, vectors: NDArray[np.float64], request_id: str, budget: Budget) -> list[float]:
        """Return the scores of vectors, one a row.

        Args:
            name: which of the predictor's models scores them.
            vectors: rows by features; null is NaN.
            request_id: goes along.
            budget: its end is when the answer must be there.

        Raises:
            Unavailable: there is no answer in time, or it is none.
        """
        wait = budget.predict(asyncio.get_running_loop().time())
        with self._breaker.call(), PREDICTOR_SECONDS.time():
            status, document = await self._ask(name, vectors, request_id, wait)
        # From here on it is at work: that it does not take this request, or is another's, opens no circuit.
        return self._scores(status, document, len(vectors))

    async def warm_up(self, name: str, vectors: NDArray[np.float64], end: float) -> None:
        """Have vectors scored that nobody asks for, until `end` on the loop's clock; the circuit does not hear of it.

        Raises:
            Unavailable: there is no answer, or it is none.
        """
        status, document = await self._ask(name, vectors, "warm-up", Wait(end, fair=False))
        self._scores(status, document, len(vectors))

    async def _ask(
        self, name: str, vectors: NDArray[np.float64], request_id: str, wait: Wait
    ) -> tuple[int, Mapping[str, Any]]:
        body = orjson.dumps({"instances": vectors}, option=orjson.OPT_SERIALIZE_NUMPY)
        headers = {"content-type": _JSON, REQUEST_ID_HEADER: request_id}
        try:
            async with asyncio.timeout_at(wait.end):
                status, text = await self._post(f"{self._base}/v1/models/{name}:predict", body, headers)
        except TimeoutError:
            raise Unavailable(
                Reason.PREDICTOR_TIMEOUT,
                "the predictor did not answer within what was left of the budget",
                counts=wait.counts(asyncio.get_running_loop().time()),
            ) from None
        except (aiohttp.ClientError, OSError) as failure:
            told = f"{type(failure).__name__}: {failure}"
            raise Unavailable(Reason.PREDICTOR_UNAVAILABLE, "the predictor does not answer", detail=told) from failure
        document = _document(text)
        if status >= 500 or not document:
            raise _failed(f"it answered {status}", text[:200].decode(errors="replace"))
        return status, document

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Post once, and once more if no connection came about, or one that was kept was just being closed.

        Both are what a predictor does that is replaced, before it looks at the request. One that dies of a request dies once.
        """
        kept = _Kept()
        try:
            return await self._post_once(url, body, headers, kept)
        except aiohttp.ClientConnectorError:
            pass
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            if not kept.connection:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)
        return await self._post_once(url, body, headers, kept)

    async def _post_once(self, url: str, body: bytes, headers: Mapping[str, str], kept: _Kept) -> tuple[int, bytes]:
        asked = self._http.post(url, data=body, headers=headers, allow_redirects=False, trace_request_ctx=kept)
        async with asked as answer:
            return answer.status, await answer.read()

    def _scores(self, status: int, document: Mapping[str, Any], rows: int) -> list[float]:
        if status != 200:
            raise _failed(f"it refused our vectors with {status}", str(document.get("error"))[:200])
        if document.get("model") != self._digest:
            raise Unavailable(
                Reason.CONTRACT_MISMATCH,
                f"the predictor serves the model {str(document.get('model'))[:64]}, this contract is {self._digest}'s",
            )
        scores = document.get("predictions")
        if not isinstance(scores, list) or len(scores) != rows:
            raise _failed(f"it answered no scores of {rows} rows")
        if not all(type(score) is float and math.isfinite(score) for score in scores):
            raise _failed("it answered scores that are no finite numbers")
        return scores


def _failed(what: str, detail: str = "") -> Unavailable:
    message = f"the predictor is out of order: {what}"
    return Unavailable(Reason.PREDICTOR_FAILED, message, detail=f"{message}: {detail!r}" if detail else message)


def _document(text: bytes) -> Mapping[str, Any]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _noting_kept_connections() -> aiohttp.TraceConfig:
    noting = aiohttp.TraceConfig()

    async def note(_: aiohttp.ClientSession, context: Any, __: aiohttp.TraceConnectionReuseconnParams) -> None:
        if isinstance(context.trace_request_ctx, _Kept):
            context.trace_request_ctx.connection = True

    noting.on_connection_reuseconn.append(note)
    return noting
