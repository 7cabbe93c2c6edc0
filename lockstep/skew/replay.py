"""Replay the held-out days once, and ask each request of the clean service and of each one with a fault.

A tick is computed and brought online, then come the requests until the next one is visible. All services read one store, each
through a transformer of its own; so all faults share one pass over the ticks:

* A view that comes online later by L is read L ahead: what the store holds of it at T answers the requests of T + L. That is what
  a pipeline that is late by L would have in the store by then; `World.ledger_of` says when it would have written it. Where the
  store is not honest, rows alone are taken from there, beside the epoch hash and the ledger of now.
* Bytes in the store are changed for one request and put back after it.
* A serving node with a wrong clock has a clock file of its own.

All rows are scored; those of a random part of them are logged, too, as one request of their own each tick.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from lockstep.clock import MICROSECOND, from_micros, to_micros
from lockstep.errors import LockstepError, Transient
from lockstep.online.layout import EntityKeys
from lockstep.online.reader import Reading
from lockstep.serving.answers import Prepared, Scored
from lockstep.serving.budget import Budget
from lockstep.serving.drain import drain
from lockstep.serving.edge import Asked, Speaks
from lockstep.serving.refusal import Reason, RowRejected, Unavailable
from lockstep.serving.request import MAX_ROWS, REQUEST_TIME
from lockstep.skew.fault import Fault
from lockstep.skew.readings import rows_from, with_view
from lockstep.skew.serving import FaultyTransformer
from lockstep.skew.subject import Subject
from lockstep.skew.world import World
from lockstep.views.declare import DAY

_READY_SECONDS = 60.0
_TOGETHER = 4
Rows = NDArray[np.int64]


@dataclass
class Service:
    """One transformer, and what became of the requests; each array has one element a held-out row.

    Attributes:
        fault: what goes wrong in it.
        transformer: the service.
        process: what the served log calls it.
        scores: NaN where it did not answer.
        changed: whether the vector is another than that of the clean service, or none.
        fell_back: whether the fallback model answered.
        refused: why requests were refused, in rows.
    """

    fault: Fault
    transformer: FaultyTransformer
    process: str
    scores: NDArray[np.float64]
    changed: NDArray[np.bool_]
    fell_back: NDArray[np.bool_]
    refused: Counter[str] = field(default_factory=Counter[str])
    read_ahead: dict[int, tuple[Reading, int]] = field(default_factory=dict[int, tuple[Reading, int]])


@dataclass(frozen=True)
class Step:
    """A tick, and the requests that are asked until the next one is visible: those of `[start, end)`."""

    tick: datetime
    start: datetime
    end: datetime

    @property
    def middle(self) -> datetime:
        """What the clock says meanwhile."""
        return self.start + (self.end - self.start) / 2


def steps_of(world: World, start: datetime, end: datetime, lags: Iterable[timedelta]) -> list[Step]:
    """Return the ticks from which the requests of `[start, end)` are answered, and those that late views need before.

    What is needed more than a day ahead is computed once a day, as by a pipeline that catches up.
    """
    every, known = world.every, sorted(set(lags))
    short = max((lag for lag in known if lag <= DAY), default=timedelta(0))
    fine = start - short - every
    ticks = {fine + number * every for number in range((end - fine) // every)}
    if known and known[-1] > short:
        begin = start - known[-1] - every
        ticks |= {begin + number * DAY for number in range(-((begin - fine) // DAY))}
    ordered = sorted(ticks)
    following = [*ordered[1:], ordered[-1] + every]
    return [Step(tick, tick + world.lags, after + world.lags) for tick, after in zip(ordered, following, strict=True)]


class Replay:
    """One pass over the held-out days.

    Args:
        subject: the model and the requests.
        world: where they are asked.
        predictor: host and port of the model's predictor.
        faults: each gets a service; the first one must be the clean one.
        logged: how many rows go into the served log, of each service.
        seed: of all chance.
    """

    def __init__(
        self, subject: Subject, world: World, predictor: str, faults: Sequence[Fault], *, logged: int, seed: int
    ) -> None:
        self._subject = subject
        self._world = world
        self._predictor = predictor
        self._faults = faults
        self._seed = seed
        self._times = subject.times_us
        self._requests = subject.requests()
        rows = len(self._times)
        chosen = np.random.default_rng(seed).permutation(rows)[: min(logged, rows)]
        self._logged = np.zeros(rows, np.bool_)
        self._logged[chosen] = True
        self._keys = {
            view.name: EntityKeys(subject.contract.project, view.join_keys) for view in subject.contract.views
        }

    def logs(self, service: Service, rows: Rows) -> NDArray[np.bool_]:
        """Return which of some rows a service logs."""
        return self._logged[rows]

    @property
    def steps(self) -> list[Step]:
        """The ticks that are gone through."""
        lags = [lag for fault in self._faults for lag in fault.lags.values()]
        return steps_of(self._world, self._subject.start, self._subject.end, lags)

    async def run(self, advance: Callable[[], None]) -> list[Service]:
        """Go through the ticks, and drain the log; `advance` is told of each tick."""
        steps = self.steps
        self._world.advance(steps[0].tick)
        async with AsyncExitStack() as running:
            services = [await running.enter_async_context(self._service(of, steps[0])) for of in self._faults]
            for step in steps:
                self._world.advance(step.tick)
                self._move_clocks(step)
                await self._look_ahead(services, step)
                rows = self._between(step.start, step.end)
                for part in (rows[start : start + MAX_ROWS] for start in range(0, len(rows), MAX_ROWS)):
                    await self._ask_all(services, part)
                advance()
        drain(self._world.lake, self._world.store, self._world.use_case.project)
        return services

    @asynccontextmanager
    async def _service(self, fault: Fault, first: Step) -> AsyncGenerator[Service]:
        settings = self._world.settings
        if fault.clock:
            settings = settings.model_copy(update={"clock_file": settings.home / f"clock{fault.clock // MICROSECOND}"})
        settings.clock.advance_to(first.middle + fault.clock)
        transformer = FaultyTransformer(
            fault,
            self._subject.use_case.model.name,
            self._subject.model,
            predictor=self._predictor,
            settings=settings,
            seed=self._seed,
        )
        rows = len(self._times)
        task = asyncio.create_task(transformer.start_engine())
        try:
            await _until_ready(transformer)
            transformer.call_log(fault.name)
            yield Service(
                fault,
                transformer,
                fault.name,
                np.full(rows, np.nan),
                np.zeros(rows, np.bool_),
                np.zeros(rows, np.bool_),
            )
        finally:
            transformer.stop_engine()
            await task

    def _between(self, start: datetime, end: datetime) -> Rows:
        first, last = np.searchsorted(self._times, [to_micros(start), to_micros(end)])
        return np.arange(first, last)

    def _move_clocks(self, step: Step) -> None:
        settings = self._world.settings
        settings.clock.advance_to(step.middle)
        for apart in {fault.clock for fault in self._faults if fault.clock}:
            own = settings.model_copy(update={"clock_file": settings.home / f"clock{apart // MICROSECOND}"})
            own.clock.advance_to(step.middle + apart)

    async def _look_ahead(self, services: Sequence[Service], step: Step) -> None:
        """Read late views for requests to come: what the store holds now is all that there will be of them by then."""
        for service in services:
            for lag in set(service.fault.lags.values()):
                rows = self._between(step.start + lag, step.end + lag)
                for part in (rows[start : start + MAX_ROWS] for start in range(0, len(rows), MAX_ROWS)):
                    entities = service.fault.asked(self._entities(part))
                    reading = await service.transformer.reader.read(entities, self._times[part].tolist())
                    service.read_ahead |= {row: (reading, place) for place, row in enumerate(part.tolist())}

    async def _ask_all(self, services: Sequence[Service], rows: Rows) -> None:
        """Ask the clean service, then those that only read, some at a time, then those that change the store."""
        clean, *others = services
        expected = await self._ask(clean, rows)
        reading = [service for service in others if not service.fault.of_store]
        for start in range(0, len(reading), _TOGETHER):
            together = reading[start : start + _TOGETHER]
            for service, vectors in zip(
                together, await asyncio.gather(*(self._ask(s, rows) for s in together)), strict=True
            ):
                _note_changes(service, rows, expected, vectors)
        for service in others:
            if service.fault.of_store:
                with self._stored(service.fault, rows):
                    vectors = await self._ask(service, rows)
                _note_changes(service, rows, expected, vectors)

    async def _ask(self, service: Service, rows: Rows) -> Mapping[int, NDArray[np.float64]]:
        """Ask for some rows, and return the vectors of those that the main model answered."""
        vectors: dict[int, NDArray[np.float64]] = {}
        logged = self.logs(service, rows)
        for part, log in ((rows[logged], True), (rows[~logged], False)):
            if len(part):
                await self._ask_part(service, part, vectors, log=log)
        return vectors

    async def _ask_part(
        self, service: Service, rows: Rows, vectors: dict[int, NDArray[np.float64]], *, log: bool
    ) -> None:
        transformer = service.transformer
        transformer.aged, transformer.logged = self._aged(service, rows), log
        now = asyncio.get_running_loop().time()
        seconds = self._world.settings.request_budget.total_seconds()
        asked = Asked(self._body(service.fault, rows), Speaks.V1, Budget(now, seconds, seconds))
        try:
            prepared = await transformer.prepare(asked, {})
            scored = await transformer.score(prepared)
        except RowRejected as refusal:
            service.refused[Reason.ROW_REJECTED.value] += len(refusal.rows)
            left = np.delete(rows, refusal.rows)
            if len(left):
                await self._ask_part(service, left, vectors, log=log)
            return
        except LockstepError as refusal:
            service.refused[_reason(refusal)] += len(rows)
            return
        transformer.answer(scored, {})
        self._note(service, rows, prepared, scored, vectors)

    def _note(
        self,
        service: Service,
        rows: Rows,
        prepared: Prepared,
        scored: Scored,
        vectors: dict[int, NDArray[np.float64]],
    ) -> None:
        service.scores[rows] = scored.scores
        main = prepared.answering.contract is self._subject.contract
        service.fell_back[rows] = not main
        if main:
            vectors |= zip(rows.tolist(), prepared.vectors, strict=True)

    def _body(self, fault: Fault, rows: Rows) -> bytes:
        shift = fault.clock // MICROSECOND
        contract = self._subject.contract
        instances = [
            {
                **fault.sent(contract, self._requests[row]),
                REQUEST_TIME: from_micros(int(self._times[row]) + shift).isoformat(),
            }
            for row in rows.tolist()
        ]
        return orjson.dumps({"instances": instances, "request_id": f"{fault.name}-{rows[0]}"})

    def _entities(self, rows: Rows) -> dict[str, list[Any]]:
        asked = [self._requests[row] for row in rows.tolist()]
        return {key.name: [of[key.name] for of in asked] for key in self._subject.contract.join_keys}

    def _aged(self, service: Service, rows: Rows) -> Callable[[Reading], Reading] | None:
        fault = service.fault
        if not fault.lags:
            return None
        ahead = [service.read_ahead[row] for row in rows.tolist()]
        entities = self._entities(rows)

        def aged(reading: Reading) -> Reading:
            first, _ = ahead[0]
            said = first if fault.honest else reading
            for view in fault.lags:
                then = rows_from([(read.views[view], place) for read, place in ahead])
                late = fault.late(view, reading.views[view], then, entities)
                reading = with_view(reading, view, late, said.before.views[view], said.after.views[view])
            return reading

        return aged

    @contextmanager
    def _stored(self, fault: Fault, rows: Rows) -> Generator[None]:
        """Have the fault's bytes in the store as long as the block runs."""
        asked = fault.asked(self._entities(rows))
        views: defaultdict[bytes, list[str]] = defaultdict(list)
        for view in self._subject.contract.views:
            for key in set(self._keys[view.name].encode(asked)):
                views[key].append(view.name)
        read = self._world.store.pipeline(transaction=False)
        for key in views:
            read.execute_command("HGETALL", key)
        found = dict(zip(views, cast("list[dict[bytes, bytes]]", read.execute()), strict=True))
        changed: dict[bytes, Mapping[bytes, bytes]] = {}
        for key, row in found.items():
            wrong: Mapping[bytes, bytes] = row
            for view in views[key]:
                wrong = fault.stored(self._subject.contract.view(view), key, wrong) if wrong else wrong
            if wrong != row:
                changed[key] = wrong
        self._put(changed)
        try:
            yield
        finally:
            self._put({key: found[key] for key in changed})

    def _put(self, hashes: Mapping[bytes, Mapping[bytes, bytes]]) -> None:
        write = self._world.store.pipeline(transaction=True)
        for key, row in hashes.items():
            write.delete(key)
            if row:
                write.execute_command("HSET", key, *chain.from_iterable(row.items()))
        write.execute()


def _note_changes(
    service: Service, rows: Rows, expected: Mapping[int, NDArray[np.float64]], found: Mapping[int, NDArray[np.float64]]
) -> None:
    for row in rows.tolist():
        same = row in expected and row in found and np.array_equal(expected[row], found[row], equal_nan=True)
        service.changed[row] = not same


def _reason(refusal: LockstepError) -> str:
    return refusal.reason.value if isinstance(refusal, Unavailable) else type(refusal).__name__


async def _until_ready(transformer: FaultyTransformer) -> None:
    end = asyncio.get_running_loop().time() + _READY_SECONDS
    while not transformer.status()["ready"]:
        if asyncio.get_running_loop().time() > end:
            raise Transient(f"the service did not become ready: {transformer.status().get('wrong')}")
        await asyncio.sleep(0.01)
