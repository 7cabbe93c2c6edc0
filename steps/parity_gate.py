"""Refuse the challenger unless a parity report that is its own, fresh and whole says pass."""

from hera.workflows.io import Input, Output

from lockstep.errors import Refused
from steps._step import step
from steps._wiring import Wiring


class ParityGateInput(Input):
    """The parity report's name."""

    report: str


class ParityGateOutput(Output):
    """The version that may be promoted."""

    version: int


@step(service_account="promoter")
def parity_gate(given: ParityGateInput) -> ParityGateOutput:
    """Decide; a refusal exits 3 and names every reason."""
    from lockstep.parity.gate import decide  # noqa: PLC0415
    from lockstep.parity.report import load  # noqa: PLC0415
    from lockstep.training.registry import challenger  # noqa: PLC0415 - imports MLflow, 2 s

    wiring = Wiring()
    model = challenger(wiring.settings, wiring.use_case.model.name)
    report = load(wiring.settings, wiring.lake, given.report)
    decision = decide(wiring.settings, model, report, wiring.settings.clock.now())
    if not decision.passed:
        raise Refused(f"version {model.version} is not promoted: {'; '.join(decision.reasons)}")
    return ParityGateOutput(version=model.version)
