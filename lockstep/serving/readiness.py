"""Readiness that means it: store and predictor answer now, something is online, and both processes go by one contract."""

import asyncio
import logging
import time
from collections.abc import Sequence

import aiohttp
import numpy as np

from lockstep.clock import MICROSECOND, to_micros
from lockstep.contract import Column, FeatureContract
from lockstep.errors import LockstepError, SchemaDrift, Transient
from lockstep.online.reader import OnlineReader, Reading
from lockstep.serving.answering import Answering
from lockstep.serving.freshness import freshness_of, require_filled
from lockstep.serving.hop import PredictorHop
from lockstep.serving.metrics import LOOP_LAG, READY, tell_ages
from lockstep.settings import Settings

_EVERY_SECONDS = 1.0
_PATIENCE_SECONDS = 1.0
_AGAIN_SECONDS = 0.1
_WARM_READS = 8
_WARM_SECONDS = 10.0
_LAG_SECONDS = 0.1


class Readiness:
    """Warms up what a request goes through, then looks every second and knows how it was.

    Args:
        contract: the main one.
        digest: which model the predictor must be serving.
        models: those that may answer.
        reader: of the online store.
        hop: to the predictor.
        settings: the clock.
    """

    def __init__(
        self,
        contract: FeatureContract,
        digest: str,
        models: Sequence[Answering],
        reader: OnlineReader,
        hop: PredictorHop,
        settings: Settings,
    ) -> None:
        self.wrong = "it is starting"
        self._contract = contract
        self._digest = digest
        self._models = models
        self._reader = reader
        self._hop = hop
        self._settings = settings
        self._clocks_apart_us = settings.request_time_limit // MICROSECOND
        self._nobody = {key.name: [_nobody(key)] for key in contract.join_keys}

    async def run(self) -> None:
        """Look, until cancelled."""
        warm = False
        while True:
            wrong = await self._problem(warm=warm)
            warm = warm or not wrong
            if wrong != self.wrong:
                log = logging.getLogger(__name__)
                log.warning("not ready: %s", wrong) if wrong else log.info("ready")
            self.wrong = wrong
            READY.set(0 if wrong else 1)
            await asyncio.sleep(_EVERY_SECONDS if warm else _AGAIN_SECONDS)

    async def _problem(self, *, warm: bool) -> str:
        """Return what is wrong now, "" if nothing is."""
        try:
            await self._look_at_the_store()
            async with asyncio.timeout(_PATIENCE_SECONDS):
                for model in self._models:
                    await self._require_same(model)
            if not warm:
                await self._warm_up()
        except TimeoutError:
            return f"the predictor did not answer within {_PATIENCE_SECONDS:g} s"
        except LockstepError as failure:
            return str(failure)
        except Exception as failure:  # noqa: BLE001 - were this to end, what was true last would be said for ever
            return f"{type(failure).__name__}: {failure}"
        return ""

    async def _look_at_the_store(self) -> None:
        """Read from the store, and tell how old its views are.

        Raises:
            LockstepError: it does not answer, or has nothing.
        """
        now_us = to_micros(self._settings.clock.now())
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                epochs = (await self._read(now_us)).before
        except Exception as failure:
            tell_ages(dict.fromkeys((view.name for view in self._contract.views), None))
            if isinstance(failure, TimeoutError):
                raise Transient(f"the online store did not answer within {_PATIENCE_SECONDS:g} s") from None
            raise
        tell_ages(freshness_of(self._contract, epochs, now_us, self._clocks_apart_us).ages_us)
        require_filled(self._contract, epochs)

    async def _read(self, now_us: int) -> Reading:
        return await self._reader.read(self._nobody, [now_us])

    async def _require_same(self, model: Answering) -> None:
        try:
            state = await self._hop.state(model.name)
        except (aiohttp.ClientError, OSError) as failure:
            raise Transient(f"the predictor does not answer: {type(failure).__name__}: {failure}") from failure
        if not state.get("ready"):
            raise Transient(f"the predictor is not ready to serve {model.name}")
        theirs = (state.get("model"), state.get("contract"))
        if theirs != (self._digest, model.hash):
            raise SchemaDrift(
                f"the predictor serves the model {theirs[0]} of the contract {theirs[1]}, "
                f"here are {self._digest} and {model.hash}",
                hint="both processes must be started from one model directory",
            )

    async def _warm_up(self) -> None:
        """Open connections and go through the code once, so that the first request is not the slowest."""
        now_us = to_micros(self._settings.clock.now())
        end = asyncio.get_running_loop().time() + _WARM_SECONDS
        try:
            async with asyncio.timeout_at(end):
                await asyncio.gather(*(self._read(now_us) for _ in range(_WARM_READS)))
                for model in self._models:
                    await self._hop.warm_up(model.name, np.zeros((1, len(model.contract.features))), end)
        except TimeoutError:
            raise Transient(f"store and predictor did not warm up within {_WARM_SECONDS:g} s") from None


def _nobody(key: Column) -> str | int:
    """Return a value of a join key; whether somebody has it does not matter."""
    return "" if key.dtype == "string" else 0


async def measure_lag() -> None:
    """Observe how late the event loop comes back, until cancelled."""
    while True:
        due = time.perf_counter() + _LAG_SECONDS  # uvloop's own clock goes by whole milliseconds
        await asyncio.sleep(_LAG_SECONDS)
        LOOP_LAG.observe(max(0.0, time.perf_counter() - due))
