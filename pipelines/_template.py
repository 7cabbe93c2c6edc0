"""What every WorkflowTemplate of this project has in common, and what a schedule of one is.

Behaviour is the template's; a CronWorkflow says when, and hands it the time it was meant for. So what a schedule starts, a person
can start again with the same result.
https://argo-workflows.readthedocs.io/en/latest/workflow-templates/ · https://argo-workflows.readthedocs.io/en/latest/cron-workflows/
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from hera.workflows import DAG, Counter, CronWorkflow, Gauge, Label, Parameter, WorkflowTemplate
from hera.workflows.models import (
    Mutex,
    PodGC,
    PodSecurityContext,
    SeccompProfile,
    Synchronization,
    TTLStrategy,
    ValueFrom,
    WorkflowMetadata,
    WorkflowTemplateRef,
)

from pipelines._project import resource_name
from steps.report_run import report_run

SERVICE_ACCOUNT = "feature-pipelines"
SERVICE_ACCOUNTS = (SERVICE_ACCOUNT, "materializer", "trainer", "verifier", "promoter")
"""Whose rights there are in a cluster: a pod of another account would not start."""

SCHEDULED_TIME = "{{workflow.scheduledTime}}"
"""The time that a schedule meant, whenever the run begins: Argo keeps it when a run is submitted again."""

PIPELINE_LABEL = "lockstep.dev/pipeline"


@contextmanager
def workflow_template(
    pipeline: str,
    *,
    arguments: list[Parameter] | None = None,
    deadline: timedelta = timedelta(hours=3),
    alone: bool = False,
    parallelism: int = 4,
) -> Generator[WorkflowTemplate]:
    """Define the template `<project>-<pipeline>`, whose entrypoint is the DAG `main`; what ends badly is reported.

    Args:
        pipeline: the name without the project's.
        arguments: what a run is given; what has no value must be given.
        deadline: how long a run may take.
        alone: whether a run waits until no other one of this template is under way.
        parallelism: how many pods run at once.
    """
    labels = {"app.kubernetes.io/part-of": "lockstep", PIPELINE_LABEL: pipeline}
    mutex = Synchronization(mutexes=[Mutex(name=resource_name(pipeline))])
    with WorkflowTemplate(
        name=resource_name(pipeline),
        entrypoint="main",
        on_exit="on-exit",
        arguments=arguments,
        service_account_name=SERVICE_ACCOUNT,
        security_context=PodSecurityContext(
            run_as_non_root=True, run_as_user=65532, seccomp_profile=SeccompProfile(type="RuntimeDefault")
        ),
        active_deadline_seconds=int(deadline.total_seconds()),
        parallelism=parallelism,
        synchronization=mutex if alone else None,
        # Long enough for whoever collects logs: the report of a failed run is one, and its pod succeeds.
        pod_gc=PodGC(strategy="OnPodSuccess", delete_delay_duration="10m"),
        ttl_strategy=TTLStrategy(seconds_after_success=3 * 86400, seconds_after_failure=14 * 86400),
        labels=labels,
        # Argo does not hand a template's own labels on to its runs.
        workflow_metadata=WorkflowMetadata(labels={PIPELINE_LABEL: pipeline}),
        metrics=_metrics(pipeline),
    ) as workflow:
        yield workflow
        # Argo gives onExit nothing but the run's own arguments, so the template takes no inputs and reads the globals.
        with DAG(name="on-exit"):
            # `workflow.parameters` is a global of Argo's only where there are some.
            names = ["status", "failures", *(["parameters"] if arguments else [])]
            told = {name: f"{{{{workflow.{name}}}}}" for name in names}
            report_run(
                name="report",
                when="{{workflow.status}} != Succeeded",
                arguments={"workflow": "{{workflow.name}}", "pipeline": resource_name(pipeline), **told},
            )


def schedule(
    pipeline: str, cron: str, *, within: timedelta, arguments: Mapping[str, str] | None = None
) -> CronWorkflow:
    """Return the schedule of a pipeline; a cluster that wants another one patches it.

    Args:
        pipeline: the name without the project's.
        cron: when, in UTC.
        within: how late a run may begin that the controller missed. Of several missed ones Argo runs the last.
        arguments: what the template is given.
    """
    name = resource_name(pipeline)
    return CronWorkflow(
        name=name,
        schedules=[cron],
        timezone="Etc/UTC",
        # Forbid drops a tick while the one before is under way, Replace kills that: what must not overlap holds a mutex.
        concurrency_policy="Allow",
        starting_deadline_seconds=int(within.total_seconds()),
        # How long runs are kept is the template's affair: a number of them would be an hour of the frequent ones.
        successful_jobs_history_limit=1_000,
        failed_jobs_history_limit=1_000,
        arguments=dict(arguments or {}),
        workflow_template_ref=WorkflowTemplateRef(name=name),
        labels={"app.kubernetes.io/part-of": "lockstep", PIPELINE_LABEL: pipeline},
    )


def hoisted(name: str, task: str, output: str | None = None) -> Parameter:
    """Return an output parameter of a DAG that is its task's output of the same name, or of the name `output`."""
    return Parameter(
        name=name, value_from=ValueFrom(parameter=f"{{{{tasks.{task}.outputs.parameters.{output or name}}}}}")
    )


def labelled(pipeline: str, **labels: str) -> list[Label]:
    """Return a metric's labels, the template's name among them; never a time or a run's name: each would be a series."""
    return [Label(key=key, value=value) for key, value in {"template": resource_name(pipeline), **labels}.items()]


def _metrics(pipeline: str) -> list[Counter | Gauge]:
    """Count runs by how they ended; Argo's controller exposes both with the prefix `argo_workflows_`."""
    labels = labelled(pipeline, status="{{workflow.status}}")
    return [
        Counter(name="lockstep_runs_total", help="Runs of a pipeline that ended.", labels=labels, value="1"),
        Gauge(
            name="lockstep_run_seconds",
            help="How long the last run of a pipeline took.",
            labels=labels,
            realtime=False,
            value="{{workflow.duration}}",
        ),
    ]
