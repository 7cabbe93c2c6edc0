"""Judge a logged model on the days held out, and refuse one whose training set leaks."""

from hera.workflows.io import Output

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class EvaluateModelInput(StepInput):
    """MLflow's id of the model."""

    model: str


class EvaluateModelOutput(Output):
    """The evaluation's name, and how well the model ranks the rows held out."""

    evaluation: str
    average_precision: float
    auc: float


@step(service_account="trainer", memory="4Gi")
def evaluate_model(given: EvaluateModelInput) -> EvaluateModelOutput:
    """Evaluate it, keep the evaluation, and raise every alarm."""
    from lockstep.training.judge import judge  # noqa: PLC0415 - imports MLflow and scikit-learn, 4 s

    wiring = Wiring()
    done = judge(wiring.settings, wiring.use_case, given.model)
    found = done.performance
    return EvaluateModelOutput(
        evaluation=done.hash, average_precision=found.average_precision.value, auc=found.auc.value
    )


if __name__ == "__main__":
    run_alone(evaluate_model)
