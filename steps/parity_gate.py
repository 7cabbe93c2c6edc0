"""Refuse a model unless it is good enough and a parity report that is its own, fresh and whole says pass."""

from hera.workflows.io import Output

from steps._alone import run_alone
from steps._step import VERIFY_KEY, StepInput, step
from steps._wiring import Wiring


class ParityGateInput(StepInput):
    """Which model (an alias or a version), its parity report's name, and that of its fallback if it has one."""

    model: str
    report: str
    fallback_report: str = ""


class ParityGateOutput(Output):
    """The version that may be promoted."""

    version: int


@step(service_account="promoter", secret=VERIFY_KEY)
def parity_gate(given: ParityGateInput) -> ParityGateOutput:
    """Decide; a refusal exits 3 and names every reason."""
    from lockstep.parity.gate import require_passed  # noqa: PLC0415 - imports MLflow, 2 s

    wiring = Wiring()
    model = require_passed(
        wiring.settings, wiring.use_case, wiring.lake, wiring.ledger, given.model, given.report, given.fallback_report
    )
    return ParityGateOutput(version=model.version)


if __name__ == "__main__":
    run_alone(parity_gate)
