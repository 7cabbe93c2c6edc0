"""Every quarter of an hour: how far each view is behind, as metrics."""

from datetime import timedelta

from hera.workflows import DAG, CronWorkflow, Gauge, WorkflowTemplate

from pipelines._template import hoisted, labelled, schedule
from pipelines._template import workflow_template as template
from steps.measure_lag import measure_lag


def workflow_template() -> WorkflowTemplate:
    """Return the template; a late view does not fail the run, its metrics say so."""
    outputs = [hoisted(name, "lag") for name in ("late", "names", "never", "oldest_seconds", "unfinished")]
    gauges = {
        "late": ("lockstep_views_late", "Views whose watermark is older than their objective."),
        "never": ("lockstep_views_never_online", "Views of which nothing was ever online; they are late too."),
        "oldest_seconds": ("lockstep_oldest_watermark_seconds", "Age of the watermark that is furthest behind."),
        "unfinished": ("lockstep_ledger_unfinished", "Rows of the ledger that were planned and are not finished."),
    }
    metrics = [
        Gauge(
            name=name,
            help=text,
            labels=labelled("monitor"),
            realtime=False,
            value=f"{{{{outputs.parameters.{output}}}}}",
        )
        for output, (name, text) in gauges.items()
    ]
    with template("monitor", deadline=timedelta(minutes=10), alone=True) as workflow:
        with DAG(name="main", outputs=outputs, metrics=metrics):
            measure_lag(name="lag")
    return workflow


def cron_workflow() -> CronWorkflow:
    """Return the schedule."""
    return schedule("monitor", "*/15 * * * *", within=timedelta(minutes=10))


RESOURCES = (workflow_template, cron_workflow)
