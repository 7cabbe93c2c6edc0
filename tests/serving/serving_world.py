"""What a production service is made of, on this machine, for tests of what befalls it.

A transformer and a predictor, a Redis for the features and one for the served log; a second transformer reads the same features
over a wire that can be slow or cut.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import fraud_case
from pydantic import SecretStr
from served_process import PATIENT, Answer, ServedProcess, wait_until
from serving_stack import KNOWN, TODAY, fill

from lockstep.clock import to_micros
from lockstep.local import LocalRedis
from lockstep.local.ports import LOOPBACK, free_port
from lockstep.online.epoch import EpochStore, Mark, ViewEpoch
from lockstep.online.store import connect
from lockstep.settings import Settings
from tests.faults.wire import Wire

BUDGET = 0.2
HALF = BUDGET / 2
FAILURES = 5
PAUSE = 0.5


class StoreWire(Wire):
    """A wire to the store whose answers can be late, or half of which are broken off in the middle."""

    def __init__(self, port: int) -> None:
        super().__init__(port, befall=Wire.cut, answers=True)
        self.delay = 0.0
        self.cuts = False
        self._random = Random(7)

    def _count(self, length: int) -> int:
        time.sleep(self.delay)
        return length // 2 if self.cuts and self._random.random() < 0.5 else length


@dataclass
class World:
    settings: Settings
    redis: LocalRedis
    log: LocalRedis
    wire: StoreWire
    predictor: ServedProcess
    transformer: ServedProcess
    far: ServedProcess

    def ask(self, headers: dict[str, str] | None = None, at: ServedProcess | None = None, **changes: Any) -> Answer:
        row = {"customer_id": KNOWN, "terminal_id": 5, "amount_cents": 1250}
        row |= {"request_time": self.settings.clock.now().isoformat()} | changes
        return (at or self.transformer).ask({"instances": [row]}, headers)

    def recover(self, at: ServedProcess | None = None) -> None:
        """Require that it answers again and is ready, without anybody's help."""
        wait_until(lambda: self.ask(PATIENT, at).told == (200, "fresh"), why=lambda: self.ask(PATIENT, at))
        wait_until(lambda: (at or self.transformer).state()["ready"])

    def mark(self, view: str, age: timedelta) -> None:
        """Set the watermark of a view so long before now."""
        with connect(self.settings) as store:
            mark = Mark(1, 1, 1, to_micros(self.settings.clock.now() - age))
            EpochStore(store, "fraud_case").restore(view, ViewEpoch(mark))


def hasty(home: Path, **changes: Any) -> Settings:
    """Return settings of the case with a small budget and quick circuits, its clock at today."""
    given = Settings(
        home=home,
        use_case="fraud_case",
        clock_file=home / "clock",
        request_budget=timedelta(seconds=BUDGET),
        circuit_failures=FAILURES,
        circuit_pause=timedelta(seconds=PAUSE),
        **changes,
    )
    given.clock.advance_to(TODAY)
    return given.resolved()


@contextmanager
def running_world(home: Path) -> Iterator[World]:
    """Start it, and end it with the block."""
    contract = fraud_case.with_fallback()
    model_dir = fraud_case.write_model(home / "model", contract, fraud_case.fitted())
    with ExitStack() as stack:
        store, log = (stack.enter_context(LocalRedis(home / name, free_port())) for name in ("store", "log"))
        settings = store.settings(hasty(home, served_log_url=SecretStr(f"redis://{LOOPBACK}:{log.port}/0")))
        fill(settings)
        wire = stack.enter_context(StoreWire(store.port))
        over_wire = settings.model_copy(update={"redis_port": wire.port})
        predictor = stack.enter_context(ServedProcess("predictor", settings, model_dir))
        start = partial(ServedProcess, "transformer", model_dir=model_dir, predictor_port=predictor.port)
        transformer, far = (stack.enter_context(start(settings=where)) for where in (settings, over_wire))
        for process in (predictor, transformer, far):
            process.wait_ready()
        yield World(settings, store, log, wire, predictor, transformer, far)
