"""Refuse a model unless it is good enough and a parity report that is its own, fresh and whole says pass."""

from hera.workflows.io import Input, Output

from lockstep.errors import Refused
from steps._alone import run_alone
from steps._step import step
from steps._wiring import Wiring


class ParityGateInput(Input):
    """Which model (an alias or a version), and its parity report's name."""

    model: str
    report: str


class ParityGateOutput(Output):
    """The version that may be promoted."""

    version: int


@step(service_account="promoter")
def parity_gate(given: ParityGateInput) -> ParityGateOutput:
    """Decide; a refusal exits 3 and names every reason."""
    from lockstep.parity.gate import decide  # noqa: PLC0415
    from lockstep.parity.report import load  # noqa: PLC0415
    from lockstep.training.registry import require_model  # noqa: PLC0415 - imports MLflow, 2 s

    wiring = Wiring()
    recipe = wiring.use_case.model
    model = require_model(wiring.settings, recipe.name, given.model)
    report = load(wiring.settings, wiring.lake, given.report)
    decision = decide(wiring.settings, recipe.thresholds, model, report, wiring.settings.clock.now())
    if not decision.passed:
        raise Refused(f"version {model.version} is not promoted: {'; '.join(decision.reasons)}")
    return ParityGateOutput(version=model.version)


if __name__ == "__main__":
    run_alone(parity_gate)
