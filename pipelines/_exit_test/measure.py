"""What the last held-out days are worth: asked again of the model as it is, and with each fault that may be chosen."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lockstep.skew.fault import Fault
from lockstep.skew.laboratory import CLEAN, quiet
from lockstep.skew.replay import Replay, Rows, Service
from lockstep.skew.subject import Subject
from lockstep.skew.world import World
from lockstep.training.evaluation.evaluate import metrics

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """The scores of the held-out rows; NaN where nothing was answered.

    Attributes:
        subject: the model and the rows.
        clean: of the model as it is.
        faults: what was tried.
        scores: of each of these, by name.
    """

    subject: Subject
    clean: Scores
    faults: Sequence[Fault]
    scores: Mapping[str, Scores]

    def lost(self, scores: Scores) -> float:
        """Return the share of the average precision that these scores lose; infinite where a row was not answered."""
        if np.isnan(scores).any():
            return math.inf
        return 1 - average_precision(self.subject, scores) / average_precision(self.subject, self.clean)


class Rollout(Replay):
    """A replay of which each request is logged once: by the first service, or where the deployment reached it by the last.

    Args:
        reached: which rows.
    """

    def __init__(
        self,
        subject: Subject,
        world: World,
        predictor: str,
        faults: Sequence[Fault],
        *,
        logged: int,
        seed: int,
        reached: NDArray[np.bool_],
    ) -> None:
        super().__init__(subject, world, predictor, faults, logged=logged, seed=seed)
        self._reached = reached

    def logs(self, service: Service, rows: Rows) -> NDArray[np.bool_]:
        """Return which of some rows it is this service that logs."""
        mine = self._reached[rows] if service.fault is self._faults[-1] else ~self._reached[rows]
        return super().logs(service, rows) & mine


def measure(subject: Subject, world: World, predictor: str, faults: Sequence[Fault]) -> Measured:
    """Ask all held-out rows of the model without a fault and with each one; nothing is logged."""
    clean, *faulty = replayed(Replay(subject, world, predictor, [CLEAN, *faults], logged=0, seed=0))
    return Measured(subject, clean.scores, faults, {service.fault.name: service.scores for service in faulty})


def replayed(replay: Replay) -> list[Service]:
    """Run a replay; what its services warn of is what is meant to go wrong."""
    with quiet("lockstep.serving"):
        return asyncio.run(replay.run(lambda: None))


def average_precision(subject: Subject, scores: Scores) -> float:
    """Return what scores of all rows are worth."""
    rows = np.arange(len(scores))
    return metrics(subject.scored(scores, rows), subject.use_case.model.protocol.top).average_precision
