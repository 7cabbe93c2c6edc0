"""Move the served log from the Redis Stream to the lake."""

from datetime import timedelta

from hera.workflows import DAG, CronWorkflow, WorkflowTemplate

from pipelines._template import hoisted, schedule
from pipelines._template import workflow_template as template
from steps.drain_served_log import drain_served_log


def workflow_template() -> WorkflowTemplate:
    """Return the template."""
    with template("drain-served-log", deadline=timedelta(minutes=30), alone=True) as workflow:
        with DAG(name="main", outputs=[hoisted("rows", "drain")]):
            drain_served_log(name="drain")
    return workflow


def cron_workflow() -> CronWorkflow:
    """Return the schedule: what waits in the stream is in the online store's memory."""
    return schedule("drain-served-log", "*/10 * * * *", within=timedelta(minutes=8))


RESOURCES = (workflow_template, cron_workflow)
