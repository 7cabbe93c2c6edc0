"""What every WorkflowTemplate of this project says of itself: when it ends, what is kept of it, who is told, how it is counted.

https://argo-workflows.readthedocs.io/en/latest/cost-optimisation/
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lockstep.errors import nearest
from pipelines._checks.problem import Place, Problem, located
from pipelines._template import PIPELINE_LABEL

_TEMPLATE = "make the template with pipelines._template.workflow_template, which gives it"
_POD_GC = ("OnPodCompletion", "OnPodSuccess", "OnWorkflowCompletion", "OnWorkflowSuccess")
_REQUIRED: Mapping[Place, str] = {
    ("spec", "activeDeadlineSeconds"): "a run that hangs is never ended",
    ("spec", "podGC"): "the pods of finished steps are never removed",
    ("spec", "ttlStrategy"): "finished workflows are never removed",
    ("spec", "onExit"): "nobody is told of a run that failed",
    ("spec", "metrics", "prometheus"): "nothing counts its runs",
    ("metadata", "labels", "app.kubernetes.io/part-of"): "it cannot be told from what is not ours",
    ("metadata", "labels", PIPELINE_LABEL): "it is not found by its pipeline",
    ("spec", "workflowMetadata", "labels", PIPELINE_LABEL): "its runs are not found by their pipeline",
}


def workflow_problems(manifest: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what a WorkflowTemplate does not say and has to."""
    yield from located(manifest, _problems(manifest))


def _problems(manifest: Mapping[str, Any]) -> Iterator[Problem]:
    for path, otherwise in _REQUIRED.items():
        value: Any = manifest
        for key in path:
            value = (value or {}).get(key)
        if not value:
            key = ".".join(path[1:]) if path[0] == "spec" else path[-1]
            yield Problem(path, f"{key} is not set: {otherwise}", f"{_TEMPLATE} one")
    strategy = (manifest["spec"].get("podGC") or {}).get("strategy", "")
    if strategy not in ("", *_POD_GC):
        hint = nearest(strategy, _POD_GC)
        yield Problem(("spec", "podGC", "strategy"), f"there is no podGC strategy {strategy!r}", hint)
