"""Hold a sample of what a model served against the lake and against training; keep the report."""

from hera.workflows.io import Input, Output

from lockstep.clock import parse_time
from steps._step import step
from steps._wiring import Wiring


class VerifyParityInput(Input):
    """Whose rows (an alias or a version), shadow or live, in which window of request times, and how many.

    More rows are taken if the limit needs more.
    """

    model: str
    shadow: bool
    since: str
    until: str
    sample_rows: int = 400


class VerifyParityOutput(Output):
    """The report's name, and what it says."""

    report: str
    verdict: str
    mismatches: int


@step(service_account="verifier", memory="2Gi")
def verify_parity(given: VerifyParityInput) -> VerifyParityOutput:
    """Verify parity; a failing verdict is a result, not an error: the gate decides."""
    from lockstep.parity.verify import verify  # noqa: PLC0415 - imports Feast and MLflow
    from lockstep.training.registry import require_model  # noqa: PLC0415

    wiring = Wiring()
    report = verify(
        wiring.settings,
        wiring.use_case,
        wiring.lake,
        wiring.ledger,
        require_model(wiring.settings, wiring.use_case.model.name, given.model),
        shadow=given.shadow,
        since=parse_time(given.since, "since"),
        until=parse_time(given.until, "until"),
        sample_rows=given.sample_rows,
    )
    return VerifyParityOutput(report=report.hash, verdict=report.verdict.value, mismatches=report.mismatches)
