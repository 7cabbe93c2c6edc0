"""The skew laboratory: faults injected in the real path, what they do to predictions, and whether parity finds and names them.

It works on a finished state, of which it changes nothing: the champion's held-out days are asked again in a pipeline of its own.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from lockstep.errors import Transient
from lockstep.local.child import Child
from lockstep.local.ports import LOOPBACK, free_port, listens
from lockstep.local.serving import serving_environment
from lockstep.settings import Settings
from lockstep.skew.catalog import chosen, faults_of, held_out_of
from lockstep.skew.detection import Detection, Detector
from lockstep.skew.fault import Fault
from lockstep.skew.harm import Harm, harm_of
from lockstep.skew.replay import Replay, Service
from lockstep.skew.subject import Subject, view_rows
from lockstep.skew.world import World, scratch_settings
from lockstep.views.use_case import UseCase

_READY_SECONDS = 90.0
CLEAN = Fault(name="clean", says="nothing goes wrong: every mismatch is a false alarm")


class Stage(Protocol):
    """One piece of work under way."""

    def advance(self) -> None:
        """Note that one more of its parts is done."""


class Stages(Protocol):
    """Where progress is told."""

    def stage(self, name: str, parts: int = 0) -> AbstractContextManager[Stage]:
        """Return the context of a stage."""
        ...


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        days: how many of the held-out days are asked again, the last ones.
        seeds: how many samples of each size are drawn, of each fault's rows.
        clean_seeds: the same of the clean rows.
        logged: how many rows of each service are logged.
        seed: of all chance.
    """

    days: int = 7
    seeds: int = 20
    clean_seeds: int = 200
    logged: int = 2_000
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """What came of one fault."""

    fault: Fault
    harm: Harm
    refused: dict[str, int]
    detection: Detection


@dataclass(frozen=True)
class Results:
    """What came of all of them.

    Attributes:
        version: of the model.
        digest: of the model.
        start: the first of the days.
        end: the end of the last one.
        rows: how many requests there were.
        positives: how many of them have the label 1.
        top: how many entities a day the entity precision looks at.
        threshold: of a decision.
        apart: how far a request's time may be from that of its read, and two machines' clocks from each other.
        scale: how much was done.
        seconds: how long it took.
        results: the clean service first, the faults held out last.
    """

    version: int
    digest: str
    start: datetime
    end: datetime
    rows: int
    positives: int
    top: int
    threshold: float
    apart: timedelta
    scale: Scale
    seconds: float
    results: tuple[Result, ...]

    @property
    def known(self) -> tuple[Result, ...]:
        """The clean service, and the faults that the classifier was written with."""
        return tuple(result for result in self.results if not result.fault.held_out)

    @property
    def held_out(self) -> tuple[Result, ...]:
        """The faults that it was written without."""
        return tuple(result for result in self.results if result.fault.held_out)


def run_laboratory(
    state: Settings, use_case: UseCase, folder: Path, wanted: Sequence[str], scale: Scale, stages: Stages
) -> Results:
    """Inject faults, and measure what comes of them.

    Args:
        state: the settings of a finished state.
        use_case: its definitions.
        folder: where the laboratory may live meanwhile; what is there goes.
        wanted: names of faults, or how they begin; all if there is none.
        scale: how much is done.
        stages: told what is going on.

    Raises:
        BadInput: there is no such state, or no such fault.
    """
    started = time.monotonic()
    with scratch_settings(folder, state) as scratch:
        with stages.stage("look"):
            subject = Subject.of(state, use_case, scratch, scale.days)
            faults = [CLEAN, *chosen(faults_of(subject.contract) | held_out_of(subject.contract), wanted)]
            every = min((view.every for view in subject.views), default=timedelta(hours=1))
            # A tick's requests come all at once, at its middle; the clock runs on from there.
            settings = scratch.model_copy(update={"request_time_limit": every})
            world = World(settings, use_case, subject.views, view_rows(subject, scratch))
        services = _replayed(subject, world, faults, scale, stages)
        results = _judged(subject, world, services, scale, stages)
    recipe = use_case.model
    return Results(
        version=subject.model.version,
        digest=subject.model.digest,
        start=subject.start,
        end=subject.end,
        rows=subject.rows.num_rows,
        positives=int(subject.labels.sum()),
        top=recipe.protocol.top,
        threshold=recipe.thresholds.decision,
        apart=world.settings.request_time_limit,
        scale=scale,
        seconds=time.monotonic() - started,
        results=tuple(results),
    )


def _replayed(
    subject: Subject, world: World, faults: Sequence[Fault], scale: Scale, stages: Stages
) -> Sequence[Service]:
    with predictor(world.settings, subject) as address, quiet("lockstep.serving"):
        replay = Replay(subject, world, address, faults, logged=scale.logged, seed=scale.seed)
        with stages.stage("replay", len(replay.steps)) as stage:
            return asyncio.run(replay.run(stage.advance))


def _judged(
    subject: Subject, world: World, services: Sequence[Service], scale: Scale, stages: Stages
) -> Sequence[Result]:
    clean, results = services[0], list[Result]()
    # Copies of the lake share its files: which of them takes away an old one that nobody reads does not matter.
    with stages.stage("judge", len(services)) as stage, quiet("pyiceberg.catalog"):
        detector = Detector(subject, world, services)
        for service in services:
            seeds = scale.clean_seeds if service is clean else scale.seeds
            detection = detector.detect(service, seeds)
            harm = harm_of(subject, clean, service)
            results.append(Result(service.fault, harm, dict(service.refused), detection))
            stage.advance()
    return results


@contextmanager
def predictor(settings: Settings, subject: Subject) -> Generator[str]:
    """Run the model's predictor, and give its host and port."""
    port, name = free_port(), subject.use_case.model.name
    command = [sys.executable, "-m", "lockstep.serving.predictor", "--model_name", name]
    command += ["--model_dir", str(subject.model.model_dir), "--http_host", LOOPBACK, "--http_port", str(port)]
    log = settings.home / "logs" / "predictor.log"
    child = Child(f"the predictor of {name}", command, log, serving_environment(settings))
    try:
        end = time.monotonic() + _READY_SECONDS
        while not listens(child.pid, port):
            child.require_running()
            if time.monotonic() > end:
                raise Transient(f"{child.name} does not listen\n{child.last_lines()}", hint=f"see {log}")
            time.sleep(0.05)
        yield f"{LOOPBACK}:{port}"
    finally:
        child.stop()


@contextmanager
def quiet(name: str) -> Generator[None]:
    """Keep to itself what a package warns of: here it is what is meant to go wrong."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
