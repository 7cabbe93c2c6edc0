"""The transformer with a fault in it: all else it does is what the service does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lockstep.online.reader import OnlineReader, Reading, ReadPlan
from lockstep.serving.answering import Answering
from lockstep.serving.answers import Prepared, Scored
from lockstep.serving.budget import Budget
from lockstep.serving.edge import Asked
from lockstep.serving.freshness import Freshness
from lockstep.serving.request import Request
from lockstep.serving.transformer import Transformer
from lockstep.serving.vectors import vectors_of
from lockstep.settings import Settings
from lockstep.skew.fault import Fault, Moment
from lockstep.training.registry import Registered

Aged = Callable[[Reading], Reading]


class FaultyTransformer(Transformer):
    """Serves a model with one fault.

    What `aged` makes of a reading is taken for read, and nothing is logged unless `logged` says so.

    Args:
        fault: what goes wrong.
        name: the model's name at the predictor.
        model: which version.
        predictor: its host and port.
        settings: the store and the clock.
        seed: of the fault's chance.
    """

    def __init__(
        self, fault: Fault, name: str, model: Registered, *, predictor: str, settings: Settings, seed: int
    ) -> None:
        plan = fault.plan(ReadPlan.compile(model.contract))
        super().__init__(name, model.contract, model.digest, predictor=predictor, settings=settings, plan=plan)
        self._models = [replace(m, functions=fault.functions(m.contract, m.functions)) for m in self._models]
        self._main = self._answering = self._models[0]
        self.fault = fault
        self.aged: Aged | None = None
        self.logged = True
        self._draw = np.random.default_rng([seed, *fault.name.encode()])
        self._previous: Reading | None = None
        self._memory: dict[Any, Any] = {}

    @property
    def reader(self) -> OnlineReader:
        """What reads the store, by the fault's plan."""
        return self._reader

    def call_log(self, process: str) -> None:
        """Give the rows of the served log a name that is the same in each run."""
        self._log.process = process

    async def prepare(self, asked: Asked, headers: Mapping[str, str]) -> Prepared:
        """Make vectors as the service does, and change them as the fault does."""
        prepared = await super().prepare(asked, headers)
        moment = self._moment(prepared.request)
        vectors = self.fault.vectors(prepared.answering.contract, prepared.vectors, moment)
        return replace(prepared, vectors=np.ascontiguousarray(vectors))

    async def score(self, prepared: Prepared) -> Scored:
        """Have what the fault posts scored by whom it chooses; what is logged stays as it was prepared."""
        answering, vectors = prepared.answering, prepared.vectors
        other = next((model for model in self._models if model is not self._main), None)
        if other and answering is self._main and self.fault.by_fallback(self._moment(prepared.request)):
            answering = other
            vectors = vectors_of(other.contract, other.functions, prepared.request, prepared.reading).vectors
        posted = np.ascontiguousarray(self.fault.posted(answering.contract, vectors))
        scored = await super().score(replace(prepared, answering=answering, vectors=posted))
        return replace(scored, prepared=prepared)

    async def _read(self, request: Request, budget: Budget) -> Reading:
        entities = {name: list(values) for name, values in self.fault.asked(request.entities).items()}
        reading = await super()._read(replace(request, entities=entities), budget)
        if self.aged is not None:
            reading = self.aged(reading)
        changed = self.fault.read(reading, self._moment(request))
        self._previous = reading
        return changed

    def _moment(self, request: Request) -> Moment:
        return Moment(self._draw, self._previous, request.entities, request.times_us, self._memory)

    def _offer(self, prepared: Prepared, scores: Sequence[float | None], rejected: Mapping[int, str]) -> None:
        if self.logged:
            super()._offer(prepared, scores, rejected)

    def _choose(self, reading: Reading, now_us: int, *, forced: bool) -> tuple[Answering, Freshness]:
        if not self.fault.guarded:
            return self._main, Freshness({}, {})
        return super()._choose(reading, now_us, forced=forced)
