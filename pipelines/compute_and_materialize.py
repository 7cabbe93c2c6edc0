"""Hourly: compute every view's ticks up to the window's end, then bring what is new online."""

from datetime import timedelta

from hera.workflows import DAG, CronWorkflow, Parameter, Task, TaskResult, WorkflowTemplate

from pipelines._online import bring_online, view_dag
from pipelines._template import SCHEDULED_TIME, schedule
from pipelines._template import workflow_template as template
from steps.compute_view import compute_view
from steps.list_views import list_views


def workflow_template() -> WorkflowTemplate:
    """Return the template; `window_end` has no default, so that nobody computes up to a time they did not name."""
    arguments = [Parameter(name="window_end"), Parameter(name="views", value="all")]
    with template("compute-and-materialize", arguments=arguments) as workflow:
        with view_dag("compute-and-materialize-view", "window_end") as each:
            computed = compute_view(
                name="compute",
                arguments={"view": each.get_parameter("view"), "window_end": each.get_parameter("window_end")},
            )
            bring_online(each, computed)
        with DAG(name="main", inputs=[Parameter(name="window_end"), Parameter(name="views")]) as main:
            listed = list_views(name="list", arguments={"views": main.get_parameter("views")})
            views = each(
                name="view",
                with_param=listed.get_parameter("names"),
                arguments={"view": "{{item}}", "window_end": main.get_parameter("window_end")},
            )
            with Task.set_next_defaults(on=TaskResult.succeeded):
                listed >> views
    return workflow


def cron_workflow() -> CronWorkflow:
    """Return the schedule: so that rows are created and online about as late as views declare by default.

    A tick that was missed is computed by the next run, so only the last missed run matters.
    """
    return schedule(
        "compute-and-materialize", "4 * * * *", within=timedelta(minutes=50), arguments={"window_end": SCHEDULED_TIME}
    )


RESOURCES = (workflow_template, cron_workflow)
