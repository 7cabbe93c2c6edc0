"""Hold a sample of what a model served against the lake and against training; keep the report."""

from datetime import datetime, timedelta

from hera.workflows.io import Output

from lockstep.clock import parse_time
from lockstep.errors import BadInput, Refused
from steps._alone import run_alone
from steps._step import SIGNING_KEY, StepInput, step
from steps._wiring import Wiring

MOST_HOURS = 24 * 366


class VerifyParityInput(StepInput):
    """Whose rows (an alias or a version), shadow or live, in which window of request times, and how many.

    Without `since` the window is that many hours long. More rows are taken if the limit needs more. With `strict` any other
    verdict ends the step as refused; the report is kept all the same. With `fallback` the rows are those that the model's
    fallback answered; where it has none, there is no report.
    """

    model: str
    shadow: bool
    until: str
    since: str = ""
    hours: int = 24
    sample_rows: int = 400
    strict: bool = False
    fallback: bool = False


class VerifyParityOutput(Output):
    """The report's name, what it says, and where its page is; "" and `none` where there is nothing to judge."""

    report: str
    verdict: str
    mismatches: int
    address: str


@step(service_account="verifier", memory="2Gi", secret=SIGNING_KEY)
def verify_parity(given: VerifyParityInput) -> VerifyParityOutput:
    """Verify parity; a failing verdict is a result, not an error, unless it must pass: the gate decides."""
    from lockstep.parity.publish import publish  # noqa: PLC0415 - imports MLflow, 2 s
    from lockstep.parity.verdict import Verdict  # noqa: PLC0415
    from lockstep.parity.verify import Question, verify  # noqa: PLC0415 - imports Feast and MLflow
    from lockstep.training.registry import require_model  # noqa: PLC0415

    wiring = Wiring()
    since, until = window_of(given)
    model = require_model(wiring.settings, wiring.use_case.model.name, given.model)
    if given.fallback and model.contract.fallback is None:
        return VerifyParityOutput(report="", verdict="none", mismatches=0, address="")
    report = verify(
        wiring.settings,
        wiring.use_case,
        wiring.lake,
        wiring.ledger,
        model,
        Question(
            shadow=given.shadow,
            since=since,
            until=until,
            rows=given.sample_rows,
            fallback=given.fallback,
        ),
    )
    address = publish(wiring.settings, report)
    if given.strict and report.verdict is not Verdict.PASS:
        who = f"the fallback of {given.model}" if given.fallback else given.model
        reasons = "; ".join(report.reasons)
        raise Refused(
            f"parity of {who} is {report.verdict.value}, not pass (report {report.hash[:12]}): {reasons}",
            hint=f"`lockstep parity report {report.hash[:12]}` shows it, and its page is {address or 'not in MLflow'}",
        )
    return VerifyParityOutput(
        report=report.hash, verdict=report.verdict.value, mismatches=report.mismatches, address=address
    )


def window_of(given: VerifyParityInput) -> tuple[datetime, datetime]:
    """Return since and until of the request times.

    Raises:
        BadInput: one of them is no time, or the hours are none or more than a year has.
    """
    until = parse_time(given.until, "until")
    if given.since:
        return parse_time(given.since, "since"), until
    if not 0 < given.hours <= MOST_HOURS:
        raise BadInput(f"hours is {given.hours}, it may be 1 to {MOST_HOURS}")
    return until - timedelta(hours=given.hours), until


if __name__ == "__main__":
    run_alone(verify_parity)
