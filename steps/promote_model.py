"""Make a version the champion, if the gate lets it through now and whoever has to approve it did."""

from typing import Literal

from hera.workflows.io import Output

from lockstep.errors import Refused
from steps._alone import run_alone
from steps._step import VERIFY_KEY, StepInput, step
from steps._wiring import Wiring


class PromoteModelInput(StepInput):
    """The version, the reports that speak for it and its fallback, and whether somebody had to say yes, and did."""

    version: int
    report: str
    fallback_report: str = ""
    approval: Literal["none", "required"] = "required"
    decision: Literal["no", "yes"] = "no"


class PromoteModelOutput(Output):
    """The champion's version."""

    champion: int


@step(service_account="promoter", secret=VERIFY_KEY)
def promote_model(given: PromoteModelInput) -> PromoteModelOutput:
    """Ask the gate once more, tag the version with its report, then move the alias.

    What is promoted is decided here and nowhere else: Argo lets whoever may submit begin a workflow at any of its templates,
    and the answer may have taken a day.
    """
    from lockstep.parity.gate import require_passed  # noqa: PLC0415 - imports MLflow, 2 s
    from lockstep.training.registry import (  # noqa: PLC0415
        CHAMPION,
        FALLBACK_REPORT_TAG,
        PARITY_TAG,
        REPORT_TAG,
        set_alias,
    )

    wiring = Wiring()
    if "required" in (given.approval, wiring.settings.promotion_approval) and given.decision != "yes":
        raise Refused(
            f"version {given.version} is not promoted: nobody approved it (the answer is {given.decision!r})",
            hint="run promote again with approval=required, and answer yes",
        )
    reports = (given.report, given.fallback_report)
    require_passed(wiring.settings, wiring.use_case, wiring.lake, wiring.ledger, str(given.version), *reports)
    tags = {PARITY_TAG: "passed", REPORT_TAG: given.report, FALLBACK_REPORT_TAG: given.fallback_report or "none"}
    set_alias(wiring.settings, wiring.use_case.model.name, CHAMPION, given.version, tags)
    return PromoteModelOutput(champion=given.version)


if __name__ == "__main__":
    run_alone(promote_model)
