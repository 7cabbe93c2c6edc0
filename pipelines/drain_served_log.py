"""Move the served log from the Redis Stream to the lake."""

from hera.workflows import DAG, WorkflowTemplate

from pipelines._template import workflow_template as template
from steps.drain_served_log import drain_served_log


def workflow_template() -> WorkflowTemplate:
    """Return the template."""
    with template("drain-served-log") as workflow, DAG(name="main"):
        drain_served_log(name="drain")
    return workflow


RESOURCES = (workflow_template,)
