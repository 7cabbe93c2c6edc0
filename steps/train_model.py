"""Fit the model and its fallback, and log both with their contract."""

from hera.workflows.io import Output

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class TrainModelInput(StepInput):
    """The training set's table."""

    training_set: str


class TrainModelOutput(Output):
    """MLflow's id of the model, and its digest."""

    model: str
    digest: str


@step(service_account="trainer", memory="4Gi")
def train_model(given: TrainModelInput) -> TrainModelOutput:
    """Train on a set that is already in the lake."""
    from lockstep.training.train import train  # noqa: PLC0415 - imports MLflow and scikit-learn, 4 s

    wiring = Wiring()
    done = train(wiring.settings, wiring.use_case, given.training_set)
    return TrainModelOutput(model=done.model, digest=done.digest)


if __name__ == "__main__":
    run_alone(train_model)
