"""Measure how far each feature view is behind: ticks not computed, snapshots not online, work not finished."""

import sys

from hera.workflows.io import Output

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class MeasureLagInput(StepInput):
    """Nothing: all stored views are measured."""


class MeasureLagOutput(Output):
    """How many views are late, their names, how many were never online, and of the others what is furthest behind."""

    late: int
    names: list[str]
    never: int
    oldest_seconds: float
    unfinished: int


@step()
def measure_lag(given: MeasureLagInput) -> MeasureLagOutput:
    """Say of each view how it stands; a late one is a result, not an error: alerts go by the metrics."""
    from lockstep.monitoring.lag import measure_lag as measure  # noqa: PLC0415

    del given
    wiring = Wiring()
    lags = measure(wiring.settings, wiring.use_case, wiring.lake, wiring.ledger)
    for lag in sorted(lags, key=lambda lag: not lag.is_late):
        sys.stderr.write(f"{lag}\n")
    late = [lag.view for lag in lags if lag.is_late]
    oldest = max((lag.age.total_seconds() for lag in lags if lag.age is not None), default=0.0)
    return MeasureLagOutput(
        late=len(late),
        names=late,
        never=sum(lag.age is None for lag in lags),
        oldest_seconds=oldest,
        unfinished=sum(len(lag.unfinished) for lag in lags),
    )


if __name__ == "__main__":
    run_alone(measure_lag)
