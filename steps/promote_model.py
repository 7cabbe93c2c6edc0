"""Make a version that the gate let through the champion."""

from typing import Literal

from hera.workflows.io import Input, Output

from lockstep.errors import Refused
from steps._alone import run_alone
from steps._step import step
from steps._wiring import Wiring


class PromoteModelInput(Input):
    """The version, the report that speaks for it, and whether somebody had to say yes, and did."""

    version: int
    report: str
    approval: Literal["none", "required"] = "required"
    decision: Literal["no", "yes"] = "no"


class PromoteModelOutput(Output):
    """The champion's version."""

    champion: int


@step(service_account="promoter")
def promote_model(given: PromoteModelInput) -> PromoteModelOutput:
    """Tag the version with its report, then move the alias; a promotion that was not approved is refused."""
    from lockstep.training.registry import CHAMPION, PARITY_TAG, REPORT_TAG, set_alias  # noqa: PLC0415

    if given.approval == "required" and given.decision != "yes":
        raise Refused(
            f"version {given.version} is not promoted: nobody approved it (the answer is {given.decision!r})",
            hint="the gate let it through: run promote again, and answer yes",
        )
    wiring = Wiring()
    tags = {PARITY_TAG: "passed", REPORT_TAG: given.report}
    set_alias(wiring.settings, wiring.use_case.model.name, CHAMPION, given.version, tags)
    return PromoteModelOutput(champion=given.version)


if __name__ == "__main__":
    run_alone(promote_model)
