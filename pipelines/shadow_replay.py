"""Send recent events to the challenger's dark service, to its model and to the fallback; move what it logged to the lake."""

from hera.workflows import DAG, Parameter, Task, TaskResult, WorkflowTemplate

from pipelines._template import hoisted
from pipelines._template import workflow_template as template
from steps.drain_served_log import drain_served_log
from steps.shadow_replay import shadow_replay


def workflow_template() -> WorkflowTemplate:
    """Return the template; it is run again and again while a candidate is dark."""
    defaults = {"model": "challenger", "rows": "40", "batch": "20"}
    arguments = [Parameter(name=name, value=value) for name, value in defaults.items()]
    outputs = [hoisted(name, "replay") for name in ("scored", "rejected")]
    with template("shadow-replay", arguments=arguments) as workflow:
        with DAG(name="main", inputs=[Parameter(name=name) for name in defaults], outputs=outputs) as main:
            given = {name: main.get_parameter(name) for name in defaults}
            replayed = shadow_replay(name="replay", arguments=given)
            again = shadow_replay(name="replay-fallback", arguments={**given, "fallback": "true"})
            drained = drain_served_log(name="drain")
            with Task.set_next_defaults(on=TaskResult.succeeded):
                replayed >> again >> drained
    return workflow


RESOURCES = (workflow_template,)
