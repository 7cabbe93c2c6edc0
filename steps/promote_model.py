"""Make a version that the gate let through the champion."""

from hera.workflows.io import Input, Output

from steps._alone import run_alone
from steps._step import step
from steps._wiring import Wiring


class PromoteModelInput(Input):
    """The version, and the report that speaks for it."""

    version: int
    report: str


class PromoteModelOutput(Output):
    """The champion's version."""

    champion: int


@step(service_account="promoter")
def promote_model(given: PromoteModelInput) -> PromoteModelOutput:
    """Tag the version with its report, then move the alias."""
    from lockstep.training.registry import CHAMPION, PARITY_TAG, REPORT_TAG, set_alias  # noqa: PLC0415

    wiring = Wiring()
    tags = {PARITY_TAG: "passed", REPORT_TAG: given.report}
    set_alias(wiring.settings, wiring.use_case.model.name, CHAMPION, given.version, tags)
    return PromoteModelOutput(champion=given.version)


if __name__ == "__main__":
    run_alone(promote_model)
