"""Report a run that did not succeed: what broke, in the first lines, to whoever the settings name."""

import sys

from hera.workflows.io import Output

from steps._alone import run_alone
from steps._step import StepInput, step
from steps._wiring import Wiring


class ReportRunInput(StepInput):
    """The run, and what Argo says of it: `{{workflow.name}}`, `.status`, `.failures`, `.parameters`."""

    workflow: str
    pipeline: str
    status: str
    failures: str = ""
    parameters: str = "[]"


class ReportRunOutput(Output):
    """What became of the report."""

    told: str


@step(memory="512Mi")
def report_run(given: ReportRunInput) -> ReportRunOutput:
    """Print the report, and post it; that it cannot be posted does not fail the run."""
    from lockstep.monitoring.run_report import run_report, send  # noqa: PLC0415

    report = run_report(given.workflow, given.pipeline, given.status, given.failures, given.parameters)
    sys.stderr.write(f"{report.text}\n")
    told = send(Wiring().settings, report)
    sys.stderr.write(f"{told}\n")
    return ReportRunOutput(told=told)


if __name__ == "__main__":
    run_alone(report_run)
