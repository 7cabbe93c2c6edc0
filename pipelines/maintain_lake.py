"""Nightly: expire the snapshots that ledger, parity window and tags do not need any more."""

from datetime import timedelta

from hera.workflows import DAG, CronWorkflow, Parameter, WorkflowTemplate

from pipelines._template import hoisted, schedule
from pipelines._template import workflow_template as template
from steps.maintain_lake import maintain_lake


def workflow_template() -> WorkflowTemplate:
    """Return the template; with `dry_run` it only says what would go."""
    arguments = [Parameter(name="dry_run", value="false", enum=["false", "true"])]
    outputs = [hoisted(name, "maintain") for name in ("snapshots", "files")]
    with template("maintain-lake", arguments=arguments, alone=True) as workflow:
        with DAG(name="main", inputs=[Parameter(name="dry_run")], outputs=outputs) as main:
            maintain_lake(name="maintain", arguments={"dry_run": main.get_parameter("dry_run")})
    return workflow


def cron_workflow() -> CronWorkflow:
    """Return the schedule: at night, as it reads every manifest."""
    return schedule("maintain-lake", "40 2 * * *", within=timedelta(hours=6))


RESOURCES = (workflow_template, cron_workflow)
