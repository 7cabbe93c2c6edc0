"""Bring the definitions in the image into the Feast registry."""

from hera.workflows import DAG, WorkflowTemplate

from pipelines._template import workflow_template as template
from steps.apply_definitions import apply_definitions


def workflow_template() -> WorkflowTemplate:
    """Return the template."""
    with template("apply-definitions") as workflow, DAG(name="main"):
        apply_definitions(name="apply")
    return workflow


RESOURCES = (workflow_template,)
