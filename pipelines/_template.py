"""What every WorkflowTemplate of this project has in common."""

from typing import Any

from hera.workflows import Parameter, WorkflowTemplate
from hera.workflows.models import PodGC, PodSecurityContext, SeccompProfile, TTLStrategy, ValueFrom

from pipelines._project import resource_name

SERVICE_ACCOUNT = "feature-pipelines"


def workflow_template(pipeline: str, **overrides: Any) -> WorkflowTemplate:
    """Return the template `<project>-<pipeline>`, whose entrypoint is the DAG `main`."""
    shared: dict[str, Any] = {
        "name": resource_name(pipeline),
        "entrypoint": "main",
        "service_account_name": SERVICE_ACCOUNT,
        "security_context": PodSecurityContext(
            run_as_non_root=True, run_as_user=65532, seccomp_profile=SeccompProfile(type="RuntimeDefault")
        ),
        "active_deadline_seconds": 3 * 3600,
        "pod_gc": PodGC(strategy="OnPodSuccess"),
        "ttl_strategy": TTLStrategy(seconds_after_success=3 * 86400, seconds_after_failure=14 * 86400),
        "labels": {"app.kubernetes.io/part-of": "lockstep", "lockstep.dev/pipeline": pipeline},
    }
    return WorkflowTemplate(**{**shared, **overrides})


def hoisted(name: str, task: str, output: str | None = None) -> Parameter:
    """Return an output parameter of a DAG that is its task's output of the same name, or of the name `output`."""
    return Parameter(
        name=name, value_from=ValueFrom(parameter=f"{{{{tasks.{task}.outputs.parameters.{output or name}}}}}")
    )
