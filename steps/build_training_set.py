"""Build the model's training set, point in time, and cut its contract."""

from hera.workflows.io import Output

from lockstep.clock import parse_time
from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class BuildTrainingSetInput(StepInput):
    """As of when labels are known (RFC 3339 with zone), and the features (empty: those of the model's own service)."""

    known_at: str
    service: str = ""


class BuildTrainingSetOutput(Output):
    """The training set's table, its contract's hash, and its rows."""

    table: str
    contract: str
    rows: int


@step(service_account="trainer", memory="4Gi")
def build_training_set(given: BuildTrainingSetInput) -> BuildTrainingSetOutput:
    """Retrieve features for the spine and keep the set in the lake."""
    from lockstep.training.training_set import build_training_set as build  # noqa: PLC0415 - imports Feast, 4 s

    wiring = Wiring()
    known_at = parse_time(given.known_at, "known_at")
    done = build(wiring.settings, wiring.use_case, known_at=known_at, service=given.service or None)
    return BuildTrainingSetOutput(table=done.table, contract=done.contract.hash, rows=done.rows)


if __name__ == "__main__":
    run_alone(build_training_set)
