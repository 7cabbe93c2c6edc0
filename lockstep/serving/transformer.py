"""The transformer: from entity keys to a score, by the contract. `python -m lockstep.serving.transformer --help`.

A request is parsed, its rows are read from the online store in one pipeline, made into vectors by the one function parity also
uses, scored by the predictor, answered, and logged as served.
"""

import argparse
import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
from kserve import Model
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram

from lockstep.clock import to_micros
from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, SchemaDrift, Transient
from lockstep.online import store
from lockstep.online.reader import OnlineReader, Reading, ReadPlan, ViewRows
from lockstep.serving.artifact import load_contract, model_digest
from lockstep.serving.features import load_functions
from lockstep.serving.log import Served, ServedLog
from lockstep.serving.request import Request, RequestParser
from lockstep.serving.server import DeadlinePassed, arguments, serve
from lockstep.serving.vectors import flags_of, vectors_of
from lockstep.settings import Settings

SHADOW_HEADER = "x-lockstep-shadow"
REQUEST_ID_HEADER = "x-request-id"
_RETRY_SECONDS = 0.1

# KServe's own histograms start at 5 ms, which is above what is measured here.
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5)
_READ_SECONDS = Histogram("lockstep_feature_read_seconds", "One read of the online store.", buckets=_SECONDS)
_PREDICTOR_SECONDS = Histogram("lockstep_predictor_seconds", "One call of the predictor.", buckets=_SECONDS)
_VIEW_ROWS = Counter(
    "lockstep_served_view_rows", "Rows read for live requests, by view and status.", ["view", "status"]
)


@dataclass(frozen=True)
class Prepared:
    """A request with its vectors, before it is scored."""

    request: Request
    read_time_us: int
    reading: Reading
    vectors: NDArray[np.float64]
    flags: list[list[str]]
    shadow: bool


class Transformer(Model):
    """Serves one contract.

    Args:
        name: the model's name, here and at the predictor.
        contract: what to read and how to make vectors of it.
        digest: which model the predictor must be serving.
        predictor: its host and port.
        settings: the store, the deadlines and the clock.
        shadow: nobody acts on any answer of this process.
        plan: what to read; that of the contract when not given.
    """

    def __init__(
        self,
        name: str,
        contract: FeatureContract,
        digest: str,
        *,
        predictor: str,
        settings: Settings,
        shadow: bool = False,
        plan: ReadPlan | None = None,
    ) -> None:
        super().__init__(name)
        self._contract = contract
        self._digest = digest
        self._predictor = f"http://{predictor}"
        self._settings = settings
        self._shadow = shadow
        self._parser = RequestParser(contract, settings.request_time_limit)
        self._functions = load_functions(contract, settings.use_case)
        self._plan = plan or ReadPlan.compile(contract)
        self._stopping = asyncio.Event()
        self._warm = False
        self.engine = True  # KServe then runs start_engine inside the server's loop
        self.ready = True

    async def healthy(self) -> bool:
        """Tell whether the store and the predictor have answered once; from then on failures are answered one by one."""
        return self._warm

    async def start_engine(self) -> None:
        """Hold the connections, from before readiness until the last request was answered and its log was sent."""
        limit = aiohttp.ClientTimeout(total=self._settings.predictor_deadline.total_seconds())
        connector = aiohttp.TCPConnector(limit=128, keepalive_timeout=60)
        # The log has connections of its own: a slow stream must not hold up a read.
        redis, log_redis = store.connect_async(self._settings), store.connect_async(self._settings)
        async with aiohttp.ClientSession(timeout=limit, connector=connector) as self._http:
            self._reader = OnlineReader(redis, self._plan)
            self._log = ServedLog(log_redis, self._contract.project, self._contract.hash, self._digest)
            try:
                await self._warm_up(redis)
                await self._stopping.wait()
            finally:
                await self._log.close()
                await redis.aclose()
                await log_redis.aclose()

    def stop_engine(self) -> None:
        """Let go of the connections; KServe calls this when the last request has been answered."""
        self._stopping.set()

    async def _warm_up(self, redis: store.StoreAsync) -> None:
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(1):
                    await redis.execute_command("PING")  # redis-py's own ping() is annotated as if it were sync
                    async with self._http.get(f"{self._predictor}/v2/models/{self.name}/ready") as answer:
                        if answer.status == 200:
                            self._warm = True
                            return
                reason = f"the predictor answered {answer.status}"
            except (*store.FAILURES, aiohttp.ClientError) as failure:  # TimeoutError is an OSError
                reason = f"{type(failure).__name__}: {failure}"
            logging.getLogger(__name__).info("not ready yet: %s", reason)
            await asyncio.sleep(_RETRY_SECONDS)

    # KServe's annotations allow only bodies between its three stages; it passes on whatever they return.
    async def preprocess(self, payload: Any, headers: Mapping[str, str] | None = None) -> Any:
        """First stage: see `prepare`."""
        return await self.prepare(payload, headers or {})

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> Any:
        """Second stage: see `score`."""
        return await self.score(payload)

    async def postprocess(
        self, result: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Third stage: see `answer`."""
        return self.answer(result)

    async def prepare(self, payload: object, headers: Mapping[str, str]) -> Prepared:
        """Read the request and the store, and make the vectors.

        Raises:
            BadInput: the request does not fit the contract, or calls itself a shadow of a live service (answered 400).
            RowRejected: the contract's policy rejects a row (answered 422).
            Transient: the store does not answer in time (answered 503).
        """
        if SHADOW_HEADER in headers and not self._shadow:
            raise BadInput(
                f"this service takes traffic: it refuses the header {SHADOW_HEADER}",
                hint="its rows are judged as live ones; send shadow requests to the dark service",
            )
        request = self._parser.parse(payload, self._settings.clock.now(), headers.get(REQUEST_ID_HEADER))
        reading = await self._read(request)
        read_time_us = to_micros(self._settings.clock.now())
        if not self._shadow:
            _count_rows(reading.views)  # before a row can be rejected: it is for what was read that it is
        vectors = vectors_of(self._contract, self._functions, request, reading)
        flags = flags_of(reading.views, len(request.inputs))
        return Prepared(request, read_time_us, reading, vectors, flags, self._shadow)

    async def _read(self, request: Request) -> Reading:
        # The deadline is around everything: redis-py's own time-outs apply to each try and each socket operation.
        deadline = self._settings.read_deadline.total_seconds()
        try:
            with _READ_SECONDS.time():
                async with asyncio.timeout(deadline):
                    with store.answering():
                        return await self._reader.read(request.entities, request.times_us)
        except TimeoutError:
            raise Transient(f"the online store did not answer within {deadline:g} s") from None

    async def score(self, prepared: Prepared) -> Served:
        """Have the vectors scored.

        Raises:
            Transient: the predictor is down or fails (answered 503).
            DeadlinePassed: it does not answer in time (answered 504).
            SchemaDrift: it refuses our vectors or serves another model (answered 500).
        """
        body = orjson.dumps({"instances": prepared.vectors}, option=orjson.OPT_SERIALIZE_NUMPY)
        sent = {"content-type": "application/json", REQUEST_ID_HEADER: prepared.request.id}
        url = f"{self._predictor}/v1/models/{self.name}:predict"
        try:
            with _PREDICTOR_SECONDS.time():
                async with self._http.post(url, data=body, headers=sent) as answer:
                    text = await answer.read()
        except TimeoutError:
            raise DeadlinePassed(
                f"the predictor did not answer within {self._settings.predictor_deadline.total_seconds():g} s"
            ) from None
        except (aiohttp.ClientError, OSError) as failure:
            raise Transient(f"the predictor does not answer: {type(failure).__name__}") from failure
        scores = self._scores(answer.status, text, len(prepared.flags))
        return Served(
            prepared.request,
            prepared.read_time_us,
            prepared.reading,
            prepared.vectors,
            scores,
            prepared.flags,
            prepared.shadow,
        )

    def _scores(self, status: int, text: bytes, rows: int) -> list[float]:
        if status >= 500:
            raise Transient(f"the predictor failed with {status}")
        if status != 200:
            raise SchemaDrift(
                f"the predictor refused our vectors with {status}: {text[:200].decode(errors='replace')}"
            )
        answer = orjson.loads(text)
        if answer.get("model") != self._digest or len(answer["predictions"]) != rows:
            raise SchemaDrift(
                f"the predictor serves the model {answer.get('model')}, this contract is {self._digest}'s"
            )
        return answer["predictions"]

    def answer(self, result: Served) -> dict[str, Any]:
        """Answer, and log what was served."""
        self._log.offer(result)
        return {
            "predictions": result.scores,
            "request_id": result.request.id,
            "flags": result.flags,
            "contract": self._contract.hash,
            "model": self._digest,
        }


def _count_rows(views: Mapping[str, ViewRows]) -> None:
    for name, view in views.items():
        for status in set(view.status):
            _VIEW_ROWS.labels(name, status).inc(sum(1 for s in view.status if s == status))


def transformer_arguments() -> argparse.ArgumentParser:
    """Return a parser of what the transformer's process takes."""
    parser = arguments("Turn entity keys into scores.")
    parser.add_argument("--shadow", action="store_true", help="nobody acts on the answers: mark every row as shadow")
    return parser


def serve_contract(
    given: argparse.Namespace, compile_plan: Callable[[FeatureContract], ReadPlan] = ReadPlan.compile
) -> None:
    """Serve the contract of the model that the arguments name.

    Args:
        given: what `transformer_arguments` parsed.
        compile_plan: makes the plan of what to read; the skew laboratory has others.

    Raises:
        BadInput: no predictor is named, or the model directory is none.
    """
    if not given.predictor_host:
        raise BadInput("--predictor_host is missing", hint="give the predictor's host and port")
    model_dir = Path(given.model_dir)
    contract = load_contract(model_dir)
    transformer = Transformer(
        given.model_name,
        contract,
        model_digest(model_dir),
        predictor=given.predictor_host,
        settings=Settings.load(),
        shadow=given.shadow,
        plan=compile_plan(contract),
    )
    serve(transformer, given.http_host, given.http_port)


def main() -> None:
    """Serve as the command line says."""
    serve_contract(transformer_arguments().parse_args())


if __name__ == "__main__":
    main()
