"""Parity of a candidate's shadow rows, the gate, and only then the alias `champion`."""

from hera.workflows import DAG, Parameter, Task, TaskResult, WorkflowTemplate

from pipelines._template import hoisted
from pipelines._template import workflow_template as template
from steps.drain_served_log import drain_served_log
from steps.parity_gate import parity_gate
from steps.promote_model import promote_model
from steps.verify_parity import verify_parity


def workflow_template() -> WorkflowTemplate:
    """Return the template; the window is that of the shadow replay."""
    arguments = [Parameter(name="since"), Parameter(name="until"), Parameter(name="sample_rows", value="400")]
    arguments += [Parameter(name="model", value="challenger", description="an alias or a version")]
    names = [argument.name for argument in arguments]
    outputs = [hoisted("report", "verify"), hoisted("verdict", "verify"), hoisted("champion", "promote")]
    with template("promote", arguments=arguments) as workflow:
        with DAG(name="main", inputs=[Parameter(name=name) for name in names], outputs=outputs) as main:
            drained = drain_served_log(name="drain")
            given = {name: main.get_parameter(name) for name in names}
            verified = verify_parity(name="verify", arguments={**given, "shadow": "true"})
            report = verified.get_parameter("report")
            gated = parity_gate(name="gate", arguments={"model": given["model"], "report": report})
            promoted = promote_model(
                name="promote", arguments={"version": gated.get_parameter("version"), "report": report}
            )
            with Task.set_next_defaults(on=TaskResult.succeeded):
                drained >> verified >> gated >> promoted
    return workflow


RESOURCES = (workflow_template,)
