"""The hop from the transformer to the predictor: connections that are kept, and what each answer means."""

import asyncio
import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
import numpy as np
import orjson
from numpy.typing import NDArray

from lockstep.serving.breaker import Breaker
from lockstep.serving.budget import Budget
from lockstep.serving.metrics import PREDICTOR_SECONDS
from lockstep.serving.refusal import Reason, Unavailable
from lockstep.settings import Settings

REQUEST_ID_HEADER = "x-request-id"
_JSON = "application/json"
_KEPT_SECONDS = 60.0  # KServe's server closes an idle connection after 65 s; ours must be the first
_CONNECTIONS = 128
_PAUSE_SECONDS = 0.005


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
        body = orjson.dumps({"instances": vectors}, option=orjson.OPT_SERIALIZE_NUMPY)
        headers = {"content-type": _JSON, REQUEST_ID_HEADER: request_id}
        url = f"{self._base}/v1/models/{name}:predict"
        with self._breaker.call(counts=budget.usual), PREDICTOR_SECONDS.time():
            try:
                async with asyncio.timeout_at(budget.end):
                    status, text = await self._post(url, body, headers)
            except TimeoutError:
                raise Unavailable(
                    Reason.PREDICTOR_TIMEOUT, f"the predictor did not answer within the budget of {budget.seconds:g} s"
                ) from None
            except (aiohttp.ClientError, OSError) as failure:
                raise Unavailable(
                    Reason.PREDICTOR_UNAVAILABLE, f"the predictor does not answer: {type(failure).__name__}"
                ) from failure
            document = _document(text)
            if status >= 500 or not document:
                raise _failed(f"it answered {status}: {text[:200].decode(errors='replace')!r}")
        # From here on it is at work: that it does not take this request, or is another's, opens no circuit.
        return self._scores(status, document, len(vectors))

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Post once, and once more if no connection came about or one that was kept was just being closed.

        That is what a predictor does which is replaced. Should it have scored already, scoring again harms nobody.
        """
        try:
            return await self._post_once(url, body, headers)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            await asyncio.sleep(_PAUSE_SECONDS)
            return await self._post_once(url, body, headers)

    async def _post_once(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        async with self._http.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            return answer.status, await answer.read()

    def _scores(self, status: int, document: Mapping[str, Any], rows: int) -> list[float]:
        if status != 200:
            raise _failed(f"it refused our vectors with {status}: {str(document.get('error'))[:200]}")
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


def _failed(what: str) -> Unavailable:
    return Unavailable(Reason.PREDICTOR_FAILED, f"the predictor is out of order: {what}")


def _document(text: bytes) -> Mapping[str, Any]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
