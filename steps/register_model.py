"""Register an evaluated model as the challenger."""

from hera.workflows.io import Output

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class RegisterModelInput(StepInput):
    """MLflow's id of the model, and the name of the evaluation that speaks for it."""

    model: str
    evaluation: str


class RegisterModelOutput(Output):
    """The registered version."""

    version: int


@step(service_account="trainer")
def register_model(given: RegisterModelInput) -> RegisterModelOutput:
    """Register it; the same model again is found."""
    from lockstep.training.register import register  # noqa: PLC0415 - imports MLflow, 2 s

    wiring = Wiring()
    return RegisterModelOutput(version=register(wiring.settings, wiring.use_case, given.model, given.evaluation))


if __name__ == "__main__":
    run_alone(register_model)
