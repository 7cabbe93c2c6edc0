"""Hold a sample of what a model served against the lake and against training."""

from datetime import timedelta

from hera.workflows import DAG, CronWorkflow, Parameter, Task, TaskResult, WorkflowTemplate

from pipelines._template import SCHEDULED_TIME, hoisted, schedule
from pipelines._template import workflow_template as template
from steps.drain_served_log import drain_served_log
from steps.verify_parity import verify_parity


def workflow_template() -> WorkflowTemplate:
    """Return the template; by default it judges the champion's live log of the day before `until`."""
    arguments = [
        Parameter(name="until"),
        Parameter(name="since", value="", description="empty: as many hours before `until`"),
        Parameter(name="hours", value="24"),
        Parameter(name="model", value="champion", description="an alias or a version"),
        Parameter(name="shadow", value="false", enum=["false", "true"]),
        Parameter(name="sample_rows", value="400"),
        Parameter(name="strict", value="false", enum=["false", "true"], description="fail unless the verdict is pass"),
        Parameter(
            name="fallback", value="false", enum=["false", "true"], description="judge what its fallback answered"
        ),
    ]
    names = [str(argument.name) for argument in arguments]
    outputs = [hoisted(name, "verify") for name in ("report", "verdict", "mismatches", "address")]
    with template("verify-parity", arguments=arguments) as workflow:
        with DAG(name="main", inputs=[Parameter(name=name) for name in names], outputs=outputs) as main:
            drained = drain_served_log(name="drain")
            given = {name: main.get_parameter(name) for name in names}
            verified = verify_parity(name="verify", arguments=given)
            with Task.set_next_defaults(on=TaskResult.succeeded):
                drained >> verified
    return workflow


def cron_workflow() -> CronWorkflow:
    """Return the schedule: a day of the champion's live log, and a run that fails where it does not hold."""
    given = {"until": SCHEDULED_TIME, "strict": "true"}
    return schedule("verify-parity", "15 4 * * *", within=timedelta(hours=6), arguments=given)


RESOURCES = (workflow_template, cron_workflow)
