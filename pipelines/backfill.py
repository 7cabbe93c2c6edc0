"""Compute a range of ticks, each in the way that is right for it, then bring the views online."""

from hera.workflows import DAG, Parameter, Task, TaskResult, WorkflowTemplate

from pipelines._online import bring_online, view_dag
from pipelines._template import workflow_template as template
from steps.bootstrap_view import bootstrap_view
from steps.list_views import list_views


def workflow_template() -> WorkflowTemplate:
    """Return the template for the ticks `start < T <= end`."""
    arguments = [Parameter(name="start"), Parameter(name="end"), Parameter(name="views", value="all")]
    with template("backfill", arguments=arguments) as workflow:
        with view_dag("backfill-view", "start", "end") as each:
            given = {name: each.get_parameter(name) for name in ("view", "start", "end")}
            bring_online(each, bootstrap_view(name="bootstrap", arguments=given))
        with DAG(name="main", inputs=[Parameter(name=name) for name in ("start", "end", "views")]) as main:
            listed = list_views(name="list", arguments={"views": main.get_parameter("views")})
            span = {name: main.get_parameter(name) for name in ("start", "end")}
            views = each(name="view", with_param=listed.get_parameter("names"), arguments={"view": "{{item}}", **span})
            with Task.set_next_defaults(on=TaskResult.succeeded):
                listed >> views
    return workflow


RESOURCES = (workflow_template,)
