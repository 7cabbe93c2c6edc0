"""The transformer: from entity keys to a score, by the contract. `python -m lockstep.serving.transformer --help`.

A request is parsed, its rows are read from the online store in one message, the freshness of its views decides which model
answers, the rows are made into vectors by the one function parity also uses, scored by the predictor, answered, and logged as
served: all of it within the request's budget, or it is refused with a reason.
"""

import argparse
import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from kserve import Model

from lockstep.clock import MICROSECOND, to_micros
from lockstep.contract import FeatureContract
from lockstep.errors import BadInput, LockstepError, SchemaDrift
from lockstep.online import store
from lockstep.online.reader import OnlineReader, Reading, ReadPlan
from lockstep.serving.answering import FALLBACK, MODEL_HEADER, SHADOW_HEADER, Answering, models_of
from lockstep.serving.answers import OUTPUTS, Prepared, Scored, outcome_of, predictions_of, tensors_of
from lockstep.serving.artifact import load_contract, model_digest
from lockstep.serving.breaker import Breaker
from lockstep.serving.budget import Budget
from lockstep.serving.edge import OUTCOME_HEADER, Asked, Speaks
from lockstep.serving.freshness import Freshness, answering_contract, freshness_of, require_filled
from lockstep.serving.hop import REQUEST_ID_HEADER, PredictorHop
from lockstep.serving.log import LINGER_SECONDS, ServedLog
from lockstep.serving.log_rows import Served
from lockstep.serving.metrics import READ_SECONDS, count_rows, describe_contract
from lockstep.serving.policy import rejections, require_answerable
from lockstep.serving.readiness import Readiness, measure_lag
from lockstep.serving.refusal import Reason, Unavailable
from lockstep.serving.request import Request, RequestParser
from lockstep.serving.server import arguments, run, serve
from lockstep.serving.vectors import flags_of, vectors_of
from lockstep.settings import Settings

MOST_BYTES = 4 << 20  # a thousand rows of a few kB each


class Transformer(Model):
    """Serves one contract, and its fallback.

    Args:
        name: the model's name, here and at the predictor.
        contract: what to read and how to make vectors of it.
        digest: which model the predictor must be serving.
        predictor: its host and port.
        settings: the store, the budget and the clock.
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
        super().__init__(name, return_response_headers=True)  # without it KServe drops those of `answer`
        self._contract = contract
        self._digest = digest
        self._settings = settings
        self._shadow = shadow
        self._parser = RequestParser(contract, settings.request_time_limit)
        self._plan = plan or ReadPlan.compile(contract)
        self._clocks_apart_us = settings.request_time_limit // MICROSECOND
        self._models = models_of(contract, name, settings.use_case)
        self._main = self._answering = self._models[0]  # the last that answered, but by force
        self._breaker = Breaker(
            "online store", Reason.STORE_CIRCUIT_OPEN, settings.circuit_failures, settings.circuit_pause
        )
        self._hop = PredictorHop(predictor, digest, settings)
        self._readiness: Readiness | None = None
        self._stopping = asyncio.Event()
        self.engine = True  # KServe then runs start_engine inside the server's loop
        self.ready = True
        describe_contract(contract, digest, shadow=shadow)

    def status(self) -> dict[str, Any]:
        """Say whether requests would be answered now, and if not, why."""
        wrong = self._readiness.wrong if self._readiness else "it is starting"
        state = {"name": self.name, "ready": not wrong, "model": self._digest, "contract": self._main.hash}
        return state | {"wrong": wrong} if wrong else state

    async def healthy(self) -> bool:
        """Tell the same to KServe."""
        return bool(self.status()["ready"])

    async def start_engine(self) -> None:
        """Hold the connections, from before readiness until the last request was answered and its log was sent."""
        # Parity judges a replay by all of it, and whoever has replayed drains the stream at once.
        rate, linger = (1.0, 0.0) if self._shadow else (self._settings.served_log_rate, LINGER_SECONDS)
        async with AsyncExitStack() as closing:  # the last first, and each of them, whichever fails
            redis = store.connect_async(self._settings)
            closing.push_async_callback(redis.aclose)
            # The log has connections of its own: a slow stream must not hold up a read.
            log_redis = store.connect_log_async(self._settings)
            closing.push_async_callback(log_redis.aclose)
            await closing.enter_async_context(self._hop)
            self._reader = OnlineReader(redis, self._plan)
            closing.push_async_callback(self._reader.aclose)
            self._log = ServedLog(log_redis, self._contract.project, self._digest, rate, linger)
            closing.push_async_callback(self._log.close)
            self._readiness = Readiness(
                self._contract, self._digest, self._models, self._reader, self._hop, self._settings
            )
            beside = [asyncio.create_task(self._readiness.run()), asyncio.create_task(measure_lag())]
            closing.push_async_callback(_end, beside)
            await self._stopping.wait()

    def stop_engine(self) -> None:
        """Let go of the connections; KServe calls this when the last request has been answered."""
        self._stopping.set()

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
        return self.answer(result, response_headers if response_headers is not None else {})

    async def prepare(self, asked: Asked, headers: Mapping[str, str]) -> Prepared:
        """Read the request and the store, choose who answers, and make the vectors.

        Raises:
            BadInput: the request does not fit the contract, or asks a live service for what only a dark one does.
            RowRejected: the contract's policy rejects rows; these are logged, and no other of the request.
            Unavailable: the store does not answer in time or has nothing, or a hard objective is broken and nobody may answer.
        """
        forced = self._forced(headers)
        request = self._request(asked, headers)
        started = time.perf_counter()
        reading = await self._read(request, asked.budget)
        seconds = time.perf_counter() - started
        read_time_us = to_micros(self._settings.clock.now())
        if not self._shadow:
            count_rows(reading.views)  # before a row can be rejected: it is for what was read that it is
        answering, freshness = self._choose(reading, read_time_us, forced=forced)
        contract = answering.contract
        if answering is not self._main:
            reading = reading._replace(views={view.name: reading.views[view.name] for view in contract.views})
        settled = vectors_of(contract, answering.functions, request, reading)
        rejected = rejections(contract, settled)
        flags = flags_of(reading.views, len(request.inputs), rejected)
        if freshness.unmet:
            flags = [[*freshness.flags, *of_row] for of_row in flags]
        prepared = Prepared(asked, request, read_time_us, reading, answering, settled.vectors, flags, seconds)
        if rejected:
            self._offer(prepared, [None] * len(request.inputs), rejected)
        require_answerable(contract, settled)
        return prepared

    def _forced(self, headers: Mapping[str, str]) -> bool:
        """Return whether the fallback model has to answer.

        Raises:
            BadInput: a header asks for what a live service refuses, or for a model that there is not.
        """
        asked = next((name for name in (SHADOW_HEADER, MODEL_HEADER) if name in headers), None)
        if asked and not self._shadow:
            raise BadInput(
                f"this service takes traffic: it refuses the header {asked}",
                hint="its rows are judged as live ones; send shadow requests to the dark service",
            )
        model = headers.get(MODEL_HEADER)
        if model not in {None, FALLBACK}:
            raise BadInput(f"{MODEL_HEADER} can be {FALLBACK}")
        return model == FALLBACK

    def _request(self, asked: Asked, headers: Mapping[str, str]) -> Request:
        now, name = self._settings.clock.now(), headers.get(REQUEST_ID_HEADER)
        if asked.speaks is Speaks.V1:
            return self._parser.parse(asked.body, now, name)
        return self._parser.parse_tensors(asked.body, now, name)

    async def _read(self, request: Request, budget: Budget) -> Reading:
        # The deadline is around everything: redis-py's own time-outs apply to each try and each socket operation.
        loop = asyncio.get_running_loop()
        with self._breaker.call(), READ_SECONDS.time():
            wait = budget.read(loop.time())
            try:
                async with asyncio.timeout_at(wait.end):
                    with store.answering():
                        return await self._reader.read(request.entities, request.times_us)
            except TimeoutError:
                raise Unavailable(
                    Reason.STORE_TIMEOUT,
                    f"the online store did not answer within its half of the budget of {budget.seconds:g} s",
                    counts=wait.counts(loop.time()),
                ) from None
            except SchemaDrift:  # its bytes are not what the contract says: that is no outage
                raise
            except LockstepError as failure:
                raise Unavailable(
                    Reason.STORE_UNAVAILABLE, "the online store does not answer", detail=str(failure)
                ) from failure

    def _choose(self, reading: Reading, now_us: int, *, forced: bool) -> tuple[Answering, Freshness]:
        freshness = freshness_of(self._contract, reading.before, now_us, self._clocks_apart_us)
        chosen = answering_contract(self._contract, freshness.unmet, forced=forced)
        require_filled(chosen, reading.before)
        answering = next(model for model in self._models if model.contract is chosen)
        if answering is not self._answering and not forced:
            self._answering = answering
            why = ", ".join(freshness.flags) or "every objective is kept"
            logging.getLogger(__name__).warning("%s answers from now on: %s", answering.name, why)
        return answering, freshness

    async def score(self, prepared: Prepared) -> Scored:
        """Have the vectors scored.

        Raises:
            Unavailable: the predictor is down, late, or answers what is no score of this contract's model.
        """
        started = time.perf_counter()
        scores = await self._hop.score(
            prepared.answering.name, prepared.vectors, prepared.request.id, prepared.asked.budget
        )
        return Scored(prepared, scores, time.perf_counter() - started)

    def answer(self, scored: Scored, headers: dict[str, str]) -> dict[str, Any]:
        """Answer, and log what was served."""
        prepared = scored.prepared
        self._offer(prepared, scored.scores, {})
        outcome = outcome_of(scored, self._main)
        headers[OUTCOME_HEADER] = outcome
        # https://www.w3.org/TR/server-timing/, in milliseconds
        headers["server-timing"] = f"read;dur={prepared.seconds * 1e3:.3f}, predict;dur={scored.seconds * 1e3:.3f}"
        if prepared.asked.speaks is Speaks.V2:
            return tensors_of(scored, outcome, self._digest, self.name)
        return predictions_of(scored, outcome, self._digest)

    def _offer(self, prepared: Prepared, scores: Sequence[float | None], rejected: Mapping[int, str]) -> None:
        self._log.offer(
            Served(
                prepared.request,
                prepared.read_time_us,
                prepared.reading,
                prepared.vectors,
                scores,
                prepared.flags,
                prepared.answering.hash,
                self._shadow,
                rejected,
            )
        )

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return the tensors of a request, for KServe's metadata endpoint."""
        return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in self._parser.datatypes.items()]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return the tensors of an answer."""
        return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in OUTPUTS.items()]


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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
    settings = Settings.load()
    transformer = Transformer(
        given.model_name,
        contract,
        model_digest(model_dir),
        predictor=given.predictor_host,
        settings=settings,
        shadow=given.shadow,
        plan=compile_plan(contract),
    )
    serve([transformer], given.http_host, given.http_port, settings.request_budget, MOST_BYTES)


def main() -> None:
    """Serve as the command line says."""
    serve_contract(transformer_arguments().parse_args())


if __name__ == "__main__":
    run(main)
