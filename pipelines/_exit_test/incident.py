"""An incident: what goes wrong, from when on and at which share of the requests, drawn so that it costs about a fifth."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import product

import numpy as np
from numpy.typing import NDArray

from lockstep.clock import MICROSECOND, to_micros
from lockstep.contract import FeatureContract
from lockstep.errors import BadInput
from lockstep.parity.cause import Cause
from lockstep.skew.fault import Fault
from lockstep.skew.faults.columns import Renamed
from lockstep.views.declare import DAY
from pipelines._exit_test.measure import Measured

LEAST_LOST, MOST_LOST = 0.14, 0.30
AIM = 0.20
CAUSES = (Cause.SCHEMA_DRIFT, Cause.MATERIALIZATION_GAP, Cause.CLOCK_SKEW)
HOUR = timedelta(hours=1)
_COLUMNS_TRIED = 10
_ONSETS = tuple(timedelta(hours=hours) for hours in range(12, 61, 4))
_NODES = (2, 3, 4, 5)


@dataclass(frozen=True)
class Incident:
    """What went wrong.

    Attributes:
        cause: as parity names it.
        view: whose; "" where it is no view's.
        fault: of the nodes that the deployment reached. Where it has a lag, the view is not brought online any more.
        deployed: when that was.
        kept: how long after that nothing is to be noticed yet.
        nodes: it reached one node of so many.
        predicted: the share of the average precision that it costs, as far as is known beforehand.
    """

    cause: Cause
    view: str
    fault: Fault
    deployed: datetime
    kept: timedelta = timedelta(0)
    nodes: int = 1
    predicted: float = 0.0

    @property
    def stops(self) -> bool:
        """Whether its view is not brought online any more."""
        return bool(self.fault.lags)

    @property
    def hours(self) -> int:
        """How far ahead a clock is; 0 where none is."""
        return round(self.fault.clock / HOUR)

    def reached(self, times_us: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
        """Return which requests came to a node after the deployment had reached it."""
        node = np.random.default_rng([seed, self.nodes]).integers(self.nodes, size=len(times_us))
        return (times_us >= to_micros(self.deployed)) & (node == 0)

    def harmed(self, times_us: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
        """Return which of these are answered otherwise than before."""
        return self.reached(times_us, seed) & (times_us >= to_micros(self.deployed + self.kept))


def tried_faults(contract: FeatureContract, draw: np.random.Generator) -> list[Fault]:
    """Return the faults of which the harm is measured before one is chosen.

    They are columns that are lost, a clock that is ahead of what a hard objective allows, and for views that are not brought
    online any more what they are worth a day later.
    """
    columns = [(view, column) for view in contract.views for column in view.columns]
    taken = [columns[place] for place in draw.permutation(len(columns))[:_COLUMNS_TRIED].tolist()]
    drifted = [
        Renamed(name=f"drift-{n}", says="", causes=frozenset({Cause.SCHEMA_DRIFT.value}), view=view, column=column)
        for n, (view, column) in enumerate(taken)
    ]
    late = [
        Fault(
            name=f"late-{view.name}",
            says="",
            causes=frozenset({Cause.MATERIALIZATION_GAP.value}),
            lags={view.name: DAY},
        )
        for view in contract.views
    ]
    hard = [view.freshness_us * MICROSECOND for view in contract.views if view.freshness_hard]
    longest = math.ceil(min(hard, default=timedelta(0)) / HOUR)
    ahead = Fault(
        name="clock",
        says="",
        causes=frozenset({Cause.CLOCK_SKEW.value}),
        clock=(longest + int(draw.integers(1, 6))) * HOUR,
    )
    return [*drifted, *late, ahead]


def choose(cause: Cause, measured: Measured, draw: np.random.Generator, seed: int) -> Incident:
    """Draw an incident of a cause among those that cost about a fifth of the average precision.

    Raises:
        BadInput: there is none in this state.
    """
    possible = [
        of for fault in measured.faults if cause.value in fault.causes for of in _possible(measured, fault, seed)
    ]
    within = [incident for incident in possible if LEAST_LOST <= incident.predicted <= MOST_LOST]
    if not within:
        told = ", ".join(sorted({f"{incident.predicted:.0%}" for incident in possible})) or "nothing was tried"
        raise BadInput(
            f"no {cause.value} costs between {LEAST_LOST:.0%} and {MOST_LOST:.0%} of this model's average precision: {told}",
            hint="another --seed tries others",
        )
    # First what goes wrong, then when or where: what has many good moments is not drawn more often than others.
    faults = sorted({incident.fault.name for incident in within})
    name = faults[int(draw.integers(len(faults)))]
    return min(
        (incident for incident in within if incident.fault.name == name),
        key=lambda incident: abs(incident.predicted - AIM),
    )


def _possible(measured: Measured, fault: Fault, seed: int) -> Iterator[Incident]:
    """Yield a fault from several moments on; a clock's at several shares of the nodes, too."""
    subject, scores = measured.subject, measured.scores[fault.name]
    view = fault.view.name if isinstance(fault, Renamed) else next(iter(fault.lags), "")
    (cause,) = fault.causes
    kept = timedelta(0)
    if fault.lags:
        kept = subject.contract.view(view).freshness_us * MICROSECOND
    for onset, nodes in product(_ONSETS, _NODES if fault.clock else (1,)):
        incident = Incident(Cause(cause), view, fault, subject.start + onset, kept, nodes)
        reached = incident.harmed(subject.times_us, seed)
        yield replace(incident, predicted=measured.lost(np.where(reached, scores, measured.clean)))
