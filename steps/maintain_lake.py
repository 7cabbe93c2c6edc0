"""Expire the snapshots that nobody needs any more, and remove the files that were theirs alone."""

import sys

from hera.workflows.io import Output

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class MaintainLakeInput(StepInput):
    """Whether to only say what would go."""

    dry_run: bool = False


class MaintainLakeOutput(Output):
    """How many snapshots and files went."""

    snapshots: int
    files: int


@step(service_account="materializer", memory="2Gi")
def maintain_lake(given: MaintainLakeInput) -> MaintainLakeOutput:
    """Keep what ledger, parity window and tags need; say for each table what stays and why."""
    from lockstep.retention import maintain  # noqa: PLC0415

    wiring = Wiring()
    done = maintain(wiring.settings, wiring.use_case, wiring.lake, wiring.ledger, dry_run=given.dry_run)
    for kept in done:
        reasons = ", ".join(f"{count} {why}" for why, count in kept.reasons.items())
        sys.stderr.write(f"{kept.table}: {kept.expired.snapshots} snapshots expired; kept: {reasons or 'none'}\n")
    return MaintainLakeOutput(
        snapshots=sum(kept.expired.snapshots for kept in done), files=sum(kept.expired.files for kept in done)
    )


if __name__ == "__main__":
    run_alone(maintain_lake)
