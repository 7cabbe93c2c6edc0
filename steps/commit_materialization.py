"""Say that an interval is online: in the ledger, then in the epoch hash that every reader reads."""

from hera.workflows.io import Output

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class CommitMaterializationInput(StepInput):
    """The view and the interval's id (0: nothing is new)."""

    view: str
    interval: int


class CommitMaterializationOutput(Output):
    """The view's watermark online; empty when nothing was new."""

    watermark: str


@step(service_account="materializer")
def commit_materialization(given: CommitMaterializationInput) -> CommitMaterializationOutput:
    """Commit a verified interval."""
    if not given.interval:
        return CommitMaterializationOutput(watermark="")
    row = Wiring().materializer(given.view).commit(given.interval)
    return CommitMaterializationOutput(watermark=row.watermark.isoformat())


if __name__ == "__main__":
    run_alone(commit_materialization)
