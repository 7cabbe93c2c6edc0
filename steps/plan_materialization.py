"""Claim what is new in one feature view's table, to be brought online in chunks."""

from hera.workflows.io import Output
from pydantic import BaseModel

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class ChunkPlanned(BaseModel):
    """One share of the interval's keys."""

    index: int
    of: int


class PlanMaterializationInput(StepInput):
    """The view, and into how many chunks an interval is divided."""

    view: str
    chunks: int = 1


class PlanMaterializationOutput(Output):
    """The interval's id in the ledger (0: nothing is new) and its chunks."""

    interval: int
    chunks: list[ChunkPlanned]


@step(service_account="materializer")
def plan_materialization(given: PlanMaterializationInput) -> PlanMaterializationOutput:
    """Plan an interval, or find the one an earlier run left unfinished."""
    plan = Wiring().materializer(given.view).plan(given.chunks)
    chunks = [ChunkPlanned(index=chunk.index, of=chunk.of) for chunk in plan.chunks]
    return PlanMaterializationOutput(interval=plan.interval or 0, chunks=chunks)


if __name__ == "__main__":
    run_alone(plan_materialization)
