"""Hold a sample of what a model served against the lake and against training."""

from hera.workflows import DAG, Parameter, Task, TaskResult, WorkflowTemplate

from pipelines._template import hoisted
from pipelines._template import workflow_template as template
from steps.drain_served_log import drain_served_log
from steps.verify_parity import verify_parity


def workflow_template() -> WorkflowTemplate:
    """Return the template; by default it judges the champion's live log."""
    defaults = {"model": "champion", "shadow": "false", "sample_rows": "400"}
    arguments = [Parameter(name="since"), Parameter(name="until")]
    arguments += [Parameter(name=name, value=value) for name, value in defaults.items()]
    names = ["since", "until", *defaults]
    outputs = [hoisted(name, "verify") for name in ("report", "verdict", "mismatches")]
    with template("verify-parity", arguments=arguments) as workflow:
        with DAG(name="main", inputs=[Parameter(name=name) for name in names], outputs=outputs) as main:
            drained = drain_served_log(name="drain")
            given = {name: main.get_parameter(name) for name in names}
            verified = verify_parity(name="verify", arguments=given)
            with Task.set_next_defaults(on=TaskResult.succeeded):
                drained >> verified
    return workflow


RESOURCES = (workflow_template,)
